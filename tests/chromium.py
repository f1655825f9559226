"""A real browser, headless Chromium from Debian's packages, and what tests do with the page in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.common.exceptions import ElementNotInteractableException, StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from servers import KEY

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
TEXT = "play something by Nina Simone on Spotify"
# Several canvases, each harder than what mini has learnt: a reply that takes its time.
ENDLESS = '{"type": "array", "items": {"type": "integer"}, "minItems": 200}'


@contextmanager
def browser(*logs: str) -> Iterator[webdriver.Chrome]:
    """Chromium, which keeps its own log and these; the test is skipped where there is none."""
    if not (CHROMIUM and DRIVER):
        reason = "chromium and chromedriver are missing: apt-get install chromium chromium-driver"
        if os.environ.get("REDRAFT_BROWSER_TESTS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1100,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", dict.fromkeys(("browser", *logs), "ALL"))
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver, port: int, fragment: str = f"#key={KEY}", *, model: str | None = "mini") -> None:
    """The page, with nothing kept from before; `model` is the name to wait for."""
    driver.get(f"http://127.0.0.1:{port}/health")
    driver.execute_script("localStorage.clear(); sessionStorage.clear(); indexedDB.deleteDatabase('redraft')")
    driver.get(f"http://127.0.0.1:{port}/{fragment}")
    if model is not None:
        until(driver, lambda: driver.find_element(By.ID, "model").text == model)


@contextmanager
def emulated(
    driver, *, width: int = 0, height: int = 0, letters: int = 16, scheme: str = "", motion: str = ""
) -> Iterator[None]:
    """A screen of this size, and what its owner prefers; `letters` is the browser's own size of a letter in pixels."""
    if width:
        screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [("prefers-color-scheme", scheme), ("prefers-reduced-motion", motion)]
    wanted = [{"name": name, "value": value} for name, value in features if value]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    driver.execute_cdp_cmd("Page.setFontSizes", {"fontSizes": {"standard": letters}})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Page.setFontSizes", {"fontSizes": {"standard": 16}})
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def until(driver, holds, seconds: float = 30):
    return WebDriverWait(driver, seconds, 0.02).until(lambda _: holds())


def all_of(driver, selector: str):
    return driver.find_elements(By.CSS_SELECTOR, selector)


def one(driver, selector: str):
    return driver.find_element(By.CSS_SELECTOR, selector)


def texts_of(driver, selector: str) -> list[str]:
    """Their texts in one look: the page may be drawing them anew."""
    script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
    return driver.execute_script(script, selector)


def click(page, selector: str, number: int = 0):
    """Clicks an element of a list that the page may be drawing anew, or unfolding, just then."""

    def clicked() -> bool:
        try:
            all_of(page, selector)[number].click()
        except (IndexError, StaleElementReferenceException, ElementNotInteractableException):
            return False
        return True

    until(page, clicked)


def send(page, text: str = TEXT):
    """Sends a message."""
    page.find_element(By.ID, "text").send_keys(text, Keys.ENTER)


def say(page, text: str = TEXT, replies: int = 1):
    """Sends a message and waits for its numbers."""
    send(page, text)
    until(page, lambda: len(all_of(page, ".reply > .numbers")) == replies)


def settings(page, **values: str):
    page.find_element(By.ID, "open-settings").click()
    for name, value in values.items():
        element = page.find_element(By.NAME, name)
        if element.tag_name == "select":
            Select(element).select_by_value(value)
        elif element.get_attribute("type") == "checkbox":
            element.click()
        else:
            element.clear()
            element.send_keys(value)
    page.find_element(By.CSS_SELECTOR, "#settings button:last-of-type").click()
