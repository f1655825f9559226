"""Screens of every width, large letters and long conversations: all of it can be reached, nothing lies under the box."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser import TEXT, all_of, click, emulated, one, say, settings, texts_of, until

# A phone, a narrow one, one on its side, a desk, and a phone whose page is zoomed to twice its size.
SCREENS = [(390, 844), (320, 568), (844, 390), (1280, 900), (195, 422)]
LONG = f"{TEXT} and a very long word {'x' * 120}"
# What can be seen of an element where it stands, and whether its middle is its own.
IS_BARE = """
const box = arguments[0].getBoundingClientRect();
const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
return box.left >= 0 && box.right <= innerWidth + 1 && box.top >= 0 && box.bottom <= innerHeight + 1
  && (arguments[0] === top || arguments[0].contains(top));
"""


def assert_no_sideways(page, width: int):
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    wide = page.execute_script("""
        const open = document.querySelector("dialog[open]") ?? document.body;
        return [...open.querySelectorAll("main, section, header, form, p, button, textarea, input, select, h1, h2, li, pre, .turn *")]
          .filter((e) => e.checkVisibility())
          .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
          .map((e) => e.outerHTML.slice(0, 200));
    """)  # fmt: skip
    assert wide == []


def assert_reachable(page, element):
    """It can be scrolled fully into view, with nothing over it."""
    page.execute_script("arguments[0].scrollIntoView({ block: 'end' })", element)
    assert page.execute_script(IS_BARE, element), element.get_attribute("outerHTML")[:200]


@pytest.mark.parametrize(
    ("width", "height", "letters"), [*((*screen, 16) for screen in SCREENS), *((*screen, 32) for screen in SCREENS[:4])]
)
def test_everything_can_be_reached(page, width, height, letters):
    with emulated(page, width=width, height=height, letters=letters):
        until(page, lambda: all_of(page, ".example"))
        assert_no_sideways(page, width)
        for element in all_of(page, "header button, .welcome h2, .example, #text, #send"):
            assert_reachable(page, element)
        settings(page, judge="on", seed="0")
        say(page, LONG)
        say(page, "find me a book by blargh zorp rated 99", replies=2)
        all_of(page, ".scrubber")[-1].send_keys(Keys.HOME)
        assert_no_sideways(page, width)
        shown = all_of(page, "header button, .user, .calls, .canvas .token, .scrubber, .replay, .player output, #send")
        for element in shown:
            if element.is_displayed() and element.rect["height"] < height / 3:
                assert_reachable(page, element)
        for opened in ("settings", "history"):
            page.execute_script("arguments[0].scrollIntoView()", one(page, f"#open-{opened}"))
            click(page, f"#open-{opened}")
            assert_no_sideways(page, width)
            assert_reachable(page, all_of(page, f"#{opened} form button")[-1])
            all_of(page, f"#{opened} form button")[-1].click()
        page.execute_script("arguments[0].scrollIntoView()", one(page, "#show-infill"))
        click(page, "#show-infill")
        assert_no_sideways(page, width)
        for element in (one(page, "#redraft"), one(page, "#undo"), one(page, "#instruction")):
            assert_reachable(page, element)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_the_end_of_a_long_conversation_stays_in_view(page, width, height):
    with emulated(page, width=width, height=height):
        for number in range(1, 6):
            say(page, replies=number)
            until(page, lambda: page.execute_script(IS_BARE, all_of(page, ".scrubber")[-1]))
        all_of(page, ".replay")[-1].click()
        until(page, lambda: all_of(page, ".replay")[-1].text == "Replay")
        assert page.execute_script(IS_BARE, all_of(page, ".scrubber")[-1])
        box = one(page, "#ask").rect
        assert box["y"] + box["height"] <= height + 1


def test_who_reads_further_up_is_left_there(page):
    with emulated(page, width=390, height=500):
        for number in range(1, 4):
            say(page, replies=number)
        page.execute_script("document.querySelector('main').scrollTop = 0")
        until(page, lambda: page.execute_script("return document.querySelector('main').scrollTop") == 0)
        # A reply above grows; what is read does not move.
        page.execute_script("document.querySelectorAll('.answer')[2].append('more '.repeat(300))")
        page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        assert page.execute_script("return document.querySelector('main').scrollTop") == 0


def test_the_empty_page_begins_at_its_beginning(page):
    with emulated(page, width=390, height=500):
        say(page)
        one(page, "#new").click()
        assert page.execute_script(IS_BARE, one(page, ".welcome h2"))


def test_the_order_of_the_keyboard_is_that_of_the_eye(page):
    until(page, lambda: all_of(page, ".example"))
    one(page, "h1").click()
    seen = []
    for _ in range(30):
        page.switch_to.active_element.send_keys(Keys.TAB)
        element = page.switch_to.active_element
        if element.tag_name == "body":
            break
        seen.append(element.get_attribute("id") or element.get_attribute("class"))
    first = ["show-chat", "show-infill", "new", "open-history", "open-settings", "conversation"]
    assert seen[: len(first)] == first
    assert [*dict.fromkeys(seen[len(first) :])][:4] == ["example", "text", "send", "compare"]


def test_every_control_has_a_name(page):
    one(page, "#open-settings").click()
    names = [element.accessible_name for element in all_of(page, "#settings input, #settings select, #settings textarea")]
    assert all(names)
    assert names[:2] == ["Preset", "Temperature"], "a hint is no part of a name"
    all_of(page, "#settings form button")[-1].click()
    say(page)
    for element in all_of(page, "button, input, textarea"):
        assert not element.is_displayed() or element.accessible_name, element.get_attribute("outerHTML")


def test_a_reader_for_the_blind_hears_the_reply_once(page):
    settings(page, seed="0")
    page.execute_script("""
        window.heard = [];
        new MutationObserver(() => heard.push(document.querySelector("#said").textContent))
          .observe(document.querySelector("#said"), { childList: true, characterData: true, subtree: true });
    """)
    say(page)
    heard = until(page, lambda: page.execute_script("return heard"))
    assert heard == ['PlayMusic(artist="Nina Simone", service="Spotify")']
    assert one(page, ".canvas").get_attribute("aria-hidden") == "true"
    assert all_of(page, "[aria-live]") == []


def test_a_reader_who_wants_no_motion_gets_none(page):
    with emulated(page, motion="reduce"):
        say(page)
        one(page, ".scrubber").send_keys(Keys.HOME)
        page.execute_script("document.querySelector('.reply').classList.remove('still')")
        moving = "return getComputedStyle(document.querySelector('.canvas .renoised')).animationName"
        assert page.execute_script(moving) == "none"
    assert page.execute_script(moving) == "shimmer"


def test_stopping_gives_the_focus_back(page):
    settings(page, schema='{"type": "array", "items": {"type": "integer"}, "minItems": 200}', max_tokens="2000")
    page.find_element(By.ID, "text").send_keys(TEXT)
    one(page, "#send").click()
    until(page, lambda: all_of(page, ".canvas .token"))
    one(page, "#stop").click()
    until(page, lambda: texts_of(page, ".turn .error"))
    assert page.switch_to.active_element == one(page, "#text")


def test_a_conversation_that_is_deleted_while_it_runs_stays_away(page):
    settings(page, schema='{"type": "array", "items": {"type": "integer"}, "minItems": 200}', max_tokens="2000")
    page.find_element(By.ID, "text").send_keys(TEXT, Keys.ENTER)
    until(page, lambda: all_of(page, ".canvas .token"))
    one(page, "#open-history").click()
    click(page, "#conversations li button", 1)
    until(page, lambda: one(page, "#none-kept").is_displayed())
    all_of(page, "#history form button")[0].click()
    until(page, lambda: one(page, "#send").is_enabled())
    one(page, "#open-history").click()
    assert until(page, lambda: one(page, "#none-kept").is_displayed())
