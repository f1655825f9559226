"""The page in a browser, for the tests that look at it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chromium import browser, open_page
from servers import serving


@pytest.fixture(scope="module")
def chrome():
    with browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def page_port():
    # Without the flag: what the model knows by heart, the page asks for itself.
    with serving("--threads", "1", known_tools=False) as (_, port):
        yield port


@pytest.fixture
def page(chrome, page_port):
    """The page, opened by the printed link, with nothing kept from before."""
    chrome.get_log("browser")  # what others have left in it
    open_page(chrome, page_port)
    yield chrome
    if folder := os.environ.get("REDRAFT_SCREENSHOTS"):
        name = os.environ["PYTEST_CURRENT_TEST"].split("::")[1].split(" ")[0]
        chrome.save_screenshot(str(Path(folder) / f"{name}.png"))
    errors = [entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in errors if "status of 4" not in entry["message"]]
