"""Photographs the page of `redraft serve`, and a reply as a notebook shows it: real ones of mini, in a real Chromium.

python docs/making/page_pictures.py [--out docs/pictures]

Needs chromium, chromedriver and selenium (`make browser`, and the `dev` extra).
"""

from __future__ import annotations

import argparse
import base64
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import redraft

OUT = Path(__file__).parents[1] / "pictures"
TEXT = "add this song by Daft Punk to my Sunday morning playlist"
WIDTH, HEIGHT, REPLY_WIDTH = 1000, 520, 760
LARGEST_BYTES = 150_000
REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]


@contextmanager
def serving() -> Iterator[str]:
    """The link that a server prints."""
    command = [*REDRAFT, "serve", "--port", "0", "--workers", "1", "--threads", "1", "--known-tools"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        yield next(found[0] for line in server.stderr if (found := re.search(r"http://\S+#key=\S+", line)))
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


@contextmanager
def browser(*, dark: bool, width: int = WIDTH) -> Iterator[webdriver.Chrome]:
    """Headless Chromium, in the colours that the system is said to prefer."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield driver
    finally:
        driver.quit()


def photograph(link: str, path: Path, *, dark: bool) -> None:
    """Asks once, waits until the page stands still, and writes what it looks like."""
    with browser(dark=dark) as driver:
        driver.get(link)
        wait = WebDriverWait(driver, 60, 0.1)
        wait.until(lambda d: d.find_element(By.ID, "send").is_displayed())
        wait.until(lambda d: "mini" in d.find_element(By.TAG_NAME, "body").text)
        driver.find_element(By.ID, "text").send_keys(TEXT, Keys.ENTER)
        wait.until(lambda d: "AddToPlaylist" in d.find_element(By.TAG_NAME, "body").text)
        before = None
        while before != (before := driver.find_element(By.TAG_NAME, "body").get_attribute("innerHTML")):
            time.sleep(1)
        halfway(driver)
        driver.save_screenshot(str(path))
    told(path)


def photograph_reply(html: str, path: Path, *, dark: bool) -> None:
    """What a notebook shows of a reply, at a step in the middle."""
    page = path.with_suffix(".html")
    page.write_text(f"<!doctype html><meta charset=utf-8><body style='margin: 12px'>{html}", encoding="utf-8")
    try:
        with browser(dark=dark, width=REPLY_WIDTH) as driver:
            driver.get(page.absolute().as_uri())
            if dark:
                driver.execute_script("document.body.style.background = '#111'")
            halfway(driver)
            height = driver.execute_script("return Math.ceil(document.body.getBoundingClientRect().height) + 24")
            clip = {"x": 0, "y": 0, "width": REPLY_WIDTH, "height": height, "scale": 1}
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
            path.write_bytes(base64.b64decode(shot["data"]))
    finally:
        page.unlink()
    told(path)


def halfway(driver: webdriver.Chrome) -> None:
    """Moves the slider over the steps to its middle."""
    slider = driver.find_element(By.CSS_SELECTOR, "input[type=range]")
    for _ in range(int(slider.get_attribute("max") or 0) // 2):
        slider.send_keys(Keys.ARROW_LEFT)
    driver.execute_script("document.activeElement.blur()")


def told(path: Path) -> None:
    """Says how large a picture is, and that it is not too large."""
    size = path.stat().st_size
    if size > LARGEST_BYTES:
        raise SystemExit(f"{path}: {size:,} bytes; {LARGEST_BYTES:,} are the most")
    print(f"{path}: {size:,} bytes")


def main() -> None:
    """Writes page-light.png, reply-light.png, and both in dark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with serving() as link:
        for dark in (False, True):
            photograph(link, out / f"page-{'dark' if dark else 'light'}.png", dark=dark)
    engine = redraft.load("mini")
    engine.generate(TEXT, seed=0)
    html = engine.generate(TEXT, seed=0)._repr_html_()
    for dark in (False, True):
        photograph_reply(html, out / f"reply-{'dark' if dark else 'light'}.png", dark=dark)


if __name__ == "__main__":
    main()
