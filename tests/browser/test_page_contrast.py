"""Every text of the page can be read: 4.5 to 1 against what lies behind it (WCAG 2.2, 1.4.3), in light and in dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from chromium import ENDLESS, all_of, emulated, one, open_page, say, send, settings, until

BOUND = 4.5
SCRIPT = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


def assert_readable(page, *, least: int = 1):
    looked = page.execute_script(SCRIPT, BOUND)
    assert looked["seen"] >= least
    assert looked["found"] == []


@pytest.fixture(params=["light", "dark"])
def scheme(request, page):
    """The page, whose reader prefers these colours."""
    with emulated(page, scheme=request.param):
        yield page


def test_the_empty_page_and_its_dialogs(scheme):
    until(scheme, lambda: all_of(scheme, ".example"))
    assert_readable(scheme, least=25)
    for name in ("settings", "history"):
        one(scheme, f"#open-{name}").click()
        assert_readable(scheme, least=3)
        all_of(scheme, f"#{name} form button")[-1].click()


def test_a_canvas_while_it_moves(scheme):
    settings(scheme, schema=ENDLESS, max_tokens="2000")
    send(scheme)
    seen = 0
    for _ in range(15):
        until(scheme, lambda: all_of(scheme, ".canvas .renoised"))
        seen += len(all_of(scheme, ".canvas .renoised"))
        assert_readable(scheme)
    assert seen > 100
    one(scheme, "#stop").click()
    until(scheme, lambda: all_of(scheme, ".turn .error"))
    assert_readable(scheme)


def test_a_reply_with_doubts_at_each_of_its_steps(scheme):
    settings(scheme, judge="on", seed="0")
    say(scheme, "find me a book by blargh zorp rated 99")
    assert all_of(scheme, ".doubt")
    assert_readable(scheme)
    scrubber = one(scheme, ".scrubber")
    scrubber.send_keys(Keys.HOME)
    levels = set()
    for _ in range(int(scrubber.get_attribute("max"))):
        assert_readable(scheme)
        levels |= set(scheme.execute_script(
            "return [...document.querySelectorAll('.canvas .renoised')].map((e) => Number(e.dataset.level))"
        ))  # fmt: skip
        scrubber.send_keys(Keys.ARROW_RIGHT)
    assert max(levels) >= 10, "strong tints were among them"


def test_every_strength_of_a_moving_token(scheme):
    # What no reply may have shown just now: the strongest tint, for a word and for what is folded.
    say(scheme)
    one(scheme, ".scrubber").send_keys(Keys.HOME)
    for level in range(16):
        scheme.execute_script(
            """
            for (const token of document.querySelectorAll(".canvas .token")) {
              token.classList.replace("settled", "renoised");
              token.style.setProperty("--entropy", arguments[0]);
            }
            """,
            level,
        )
        assert_readable(scheme)


def test_the_infill_view_and_its_errors(scheme):
    one(scheme, "#show-infill").click()
    assert_readable(scheme)
    scheme.execute_script("document.querySelector('#draft').value = 'no hole'")
    one(scheme, "#redraft").click()
    until(scheme, lambda: all_of(scheme, "#fill-note.error"))
    assert_readable(scheme)


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_form_for_the_key(chrome, page_port, colours):
    with emulated(chrome, scheme=colours):
        open_page(chrome, page_port, "", model=None)
        until(chrome, lambda: all_of(chrome, "#key[open]"))
        one(chrome, "#key-field").send_keys("wrong", Keys.ENTER)
        until(chrome, lambda: one(chrome, "#key-wrong").text)
        assert_readable(chrome, least=6)
        one(chrome, "#no-key").click()
        until(chrome, lambda: one(chrome, "#trouble button"))
        assert_readable(chrome)


def test_the_measure_finds_what_is_too_faint(page):
    page.execute_script("document.querySelector('#known').style.opacity = .5")
    found = page.execute_script(SCRIPT, BOUND)["found"]
    assert [text for _, text, _ in found] == ["knows 7 calls by heart"]
