"""A notebook that is really run, and what it shows in a real browser."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import redraft

CELLS = [
    "import redraft\nengine = redraft.load('mini', dtype='float32', threads=1)",
    "engine.generate('put some Miles Davis on my late night jazz playlist', seed=0)",
    "for event in engine.stream('find me a book by blargh zorp rated 99', seed=0, redraft=2): pass\nevent",
    "print(event)",
]
# Every text that shows, with its colour and what lies behind it.
COLOURS = """
    const behind = (element) => {
        for (; element; element = element.parentElement) {
            const colour = getComputedStyle(element).backgroundColor;
            if (!colour.startsWith("rgba")) return colour;
        }
    };
    return [...document.querySelectorAll(".redraft-reply *")]
        .filter((e) => e.offsetParent && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
        .map((e) => [e.className || e.tagName, getComputedStyle(e).color, behind(e)]);
"""
MEDIA = "Emulation.setEmulatedMedia"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What each cell of the notebook has put out."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    with pytest.MonkeyPatch.context() as patched:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
            patched.setenv(name, str(folder / name.lower()))
        # The kernel runs elsewhere, and must find this redraft.
        patched.setenv("PYTHONPATH", str(Path(redraft.__file__).parents[1]), prepend=os.pathsep)
        NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    nbformat.validate(notebook)
    nbformat.write(notebook, folder / "run.ipynb")
    return [cell.outputs for cell in nbformat.read(folder / "run.ipynb", as_version=4).cells]


@pytest.fixture(scope="module")
def page(chrome, outputs, tmp_path_factory):
    """Both replies in one page, as a notebook has them."""
    path = tmp_path_factory.mktemp("page") / "replies.html"
    shown = "".join(f"<div>{outputs[number][0].data['text/html']}</div>" for number in (1, 2))
    path.write_text(f"<!doctype html><meta charset=utf-8><title>replies</title>{shown}", encoding="utf-8")
    chrome.execute_cdp_cmd("Network.enable", {})
    chrome.get(path.as_uri())
    yield chrome
    assert [entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"] == []


def all_of(page, selector: str):
    return page.find_elements(By.CSS_SELECTOR, selector)


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_notebook_shows_replies(outputs):
    reply, streamed, printed = (outputs[number][0] for number in (1, 2, 3))
    assert "AddToPlaylist" in reply.data["text/html"]
    assert "<script>" in reply.data["text/html"]
    assert "<script>" in streamed.data["text/html"], "the last event of a stream has the drafts"
    assert reply.data["text/plain"].startswith("Generation(tool_calls=['AddToPlaylist(")
    assert printed.text.startswith("SearchCreativeWork(")


def test_the_scrubber_moves_through_the_drafts(page):
    scrubbers = all_of(page, "input[type=range]")
    assert len(scrubbers) == 2
    first, second = all_of(page, ".redraft-canvas")
    assert not first.is_displayed()
    scrubbers[0].send_keys(Keys.HOME)
    assert first.is_displayed()
    assert not second.is_displayed(), "each reply has its own"
    at_first, label = first.get_attribute("innerHTML"), all_of(page, "output")[0]
    assert "step 1 ·" in label.text
    assert all_of(page, ".redraft-unsure, .redraft-noise")
    scrubbers[0].send_keys(Keys.ARROW_RIGHT)
    assert "step 2 ·" in label.text
    assert first.get_attribute("innerHTML") != at_first
    scrubbers[0].send_keys(Keys.END)
    assert re.search(r"step \d+ · .* \d\d/48 accepted", label.text)
    assert "AddToPlaylist{artist:" in first.text
    assert "<eos> × " in all_of(page, ".redraft-fill")[0].text
    # Nothing but the page itself, and nothing of the first reply's in the second.
    asked = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked == []


def test_the_drafts_play(page):
    scrubber, button = all_of(page, "input[type=range]")[1], all_of(page, ".redraft-player button")[1]
    button.click()
    assert int(scrubber.get_property("value")) <= 1
    WebDriverWait(page, 20, 0.02).until(lambda _: int(scrubber.get_property("value")) >= 3)
    button.click()
    stopped = scrubber.get_property("value")
    assert button.text == "▶"
    assert int(stopped) < int(scrubber.get_property("max"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("jupyter", [None, "true", "false"])
def test_both_themes_can_be_read(page, scheme, jupyter):
    """JupyterLab's own theme comes before the system's."""
    page.execute_cdp_cmd(MEDIA, {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    try:
        if jupyter:
            page.execute_script("document.body.dataset.jpThemeLight = arguments[0]", jupyter)
        for scrubber in all_of(page, "input[type=range]"):
            scrubber.send_keys(Keys.HOME)
        page.execute_script("document.querySelectorAll('details').forEach((e) => e.open = true)")
        found = page.execute_script(COLOURS)
        assert {"CODE", "MARK", "redraft-settled", "redraft-fresh", "redraft-noise"} <= {name for name, _, _ in found}
        assert min((contrast(ink, paper), name) for name, ink, paper in found) >= (4.5, "")
        is_dark = jupyter == "false" or (scheme == "dark" and jupyter is None)
        reply = all_of(page, ".redraft-reply")[0]
        assert (
            luminance(page.execute_script("return getComputedStyle(arguments[0]).backgroundColor", reply)) < 0.2
        ) is is_dark
    finally:
        page.execute_script("delete document.body.dataset.jpThemeLight")
        page.execute_cdp_cmd(MEDIA, {"features": []})


def test_the_same_reply_may_be_shown_twice(page, outputs):
    """As a notebook does with a new view for an output: its script runs elsewhere than where it stands, or again."""
    html = outputs[1][0].data["text/html"]
    page.execute_script(
        """
        const copy = document.createElement("div");
        copy.id = "copy";
        copy.innerHTML = arguments[0];
        document.body.append(copy);
        const script = document.createElement("script");
        script.textContent = copy.querySelector("script").textContent;
        document.head.append(script);
        """,
        html,
    )
    assert len(all_of(page, "#copy input[type=range]")) == 1
    assert len(all_of(page, "input[type=range]")) == 3
    page.execute_script("document.getElementById('copy').remove()")


def test_a_narrow_output_does_not_scroll_sideways(page):
    page.execute_script("document.body.style.width = '300px'")
    for scrubber in all_of(page, "input[type=range]"):
        scrubber.send_keys(Keys.HOME)
    assert page.execute_script("return document.body.scrollWidth") <= 300
    page.execute_script("document.body.style.width = ''")
