"""The documentation's site: it builds without a warning, every link leads somewhere, nothing comes from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import typer
from selenium.webdriver.common.by import By
from snippets import ROOT

from chromium import browser, until
from redraft.cli import app
from redraft.core.options import GenerationOptions

FOUND = "return [...document.querySelectorAll('.md-search-result__link')].map(({ href }) => href)"
# What the theme's button does: it marks the block while it reads its text.
COPIED = """
const code = document.querySelector("pre > code");
code.setAttribute("data-md-copying", "");
return code.innerText;
"""
# Attributes by which a page makes a browser fetch something.
LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}


class Links(HTMLParser):
    """Attributes:
    ids: what can be linked to.
    leads: where links lead.
    loads: what is fetched.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.leads: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif (tag, name) == ("a", "href") and value:
                self.leads.append(value)
            elif (tag, name) in LOADS and value:
                self.loads.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Links]:
    return {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_somewhere(site, pages):
    dead = []
    for page, links in pages.items():
        for target in {*links.leads, *links.loads}:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            file = file / "index.html" if file.is_dir() else file
            found = file.is_file() and (not parts.fragment or file not in pages or parts.fragment in pages[file].ids)
            if not found and parts.fragment != "__skip":
                dead.append(f"{page.relative_to(site)}: {target}")
    assert not dead


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert len(pages) > 15
    foreign = [(page.name, url) for page, links in pages.items() for url in links.loads if urlsplit(url).netloc]
    # A page's own address, of which there is none, would stand in `link rel="canonical"`.
    assert not foreign
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not any(word in text for word in ("url(http", "url(//", "@import")), style


def test_every_option_stands_in_the_table(site, pages):
    table = pages[site / "reference" / "options.html"]
    assert {field.name for field in dataclasses.fields(GenerationOptions)} <= table.ids


def test_an_option_without_a_group_is_an_error(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "making")
    import options_page

    names = [field.name for field in dataclasses.fields(GenerationOptions)]
    options_page.check_groups(names)
    with pytest.raises(ValueError, match="'brand_new' stands in 0 groups"):
        options_page.check_groups([*names, "brand_new"])
    with pytest.raises(ValueError, match="'seed' is no option"):
        options_page.check_groups([name for name in names if name != "seed"])


def test_every_command_is_told(site, pages):
    def below(command, path: str):
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from () if child.hidden else below(child, f"{path}-{name}")

    commands = set(below(typer.main.get_command(app), "redraft"))
    assert len(commands) > 10
    assert commands <= pages[site / "reference" / "command-line.html"].ids


@pytest.fixture(scope="module")
def chrome():
    with browser("performance") as driver:
        yield driver


def test_it_is_read_from_the_disk(site, chrome):
    """In a browser without a network: the search finds, and nothing is asked of other machines."""
    chrome.get((site / "index.html").as_uri())
    box = chrome.find_element(By.CSS_SELECTOR, ".md-search__input")
    chrome.execute_script("arguments[0].focus()", box)
    box.send_keys("entropy")
    # The list is drawn anew while somebody types: it is read at one moment.
    found = until(chrome, lambda: chrome.execute_script(FOUND))
    assert any("options" in link for link in found)
    events = [json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert not [url for url in asked if urlsplit(url).scheme in ("http", "https")]


def test_what_is_copied_of_a_console_is_its_commands(site, chrome):
    chrome.get((site / "first-steps.html").as_uri())
    copied = chrome.execute_script(COPIED)
    assert copied.splitlines()[1].startswith("make demo")
    assert "$" not in copied
    assert "GetWeather(" not in copied
