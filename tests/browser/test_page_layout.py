"""Screens of every width, large letters, long conversations: all can be reached, nothing lies under the box."""

from __future__ import annotations

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.keys import Keys

from chromium import TEXT, all_of, click, emulated, one, say, send, settings, until

# A phone, a narrow one, one on its side, a desk, and a phone whose page is zoomed to twice its size.
SCREENS = [(390, 844), (320, 568), (844, 390), (1280, 900), (195, 422)]
# Of these, with letters of 16 or 32 pixels, the ones that are looked at each time.
QUICK = {(390, 844, 16), (320, 568, 16), (390, 844, 32), (1280, 900, 16)}
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
        const parts = "main, section, header, form, p, button, textarea, input, select, h1, h2, li, pre, .turn *";
        return [...open.querySelectorAll(parts)]
          .filter((e) => e.checkVisibility())
          .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
          .map((e) => e.outerHTML.slice(0, 200));
    """)
    assert wide == []


def assert_reachable(page, element):
    """It can be scrolled fully into view, with nothing over it, once the page has drawn what was opened."""

    def is_bare() -> bool:
        page.execute_script("arguments[0].scrollIntoView({ block: 'end' })", element)
        return page.execute_script(IS_BARE, element)

    try:
        until(page, is_bare, 5)
    except TimeoutException:
        pytest.fail(f"it cannot be reached: {element.get_attribute('outerHTML')[:200]}")


@pytest.mark.parametrize(
    ("width", "height", "letters"),
    [
        pytest.param(*screen, letters, marks=() if (*screen, letters) in QUICK else pytest.mark.full)
        for screen, letters in [*((screen, 16) for screen in SCREENS), *((screen, 32) for screen in SCREENS[:4])]
    ],
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
        send(page)
        until(page, lambda: len(all_of(page, ".reply")) == 4)
        page.execute_script("document.querySelector('main').scrollTop = 0")
        until(page, lambda: len(all_of(page, ".reply > .numbers")) == 4)
        page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        assert page.execute_script("return document.querySelector('main').scrollTop") == 0


def test_the_empty_page_begins_at_its_beginning(page):
    with emulated(page, width=390, height=500):
        say(page)
        one(page, "#new").click()
        assert page.execute_script(IS_BARE, one(page, ".welcome h2"))


@pytest.mark.parametrize("width", [320, 1280])
def test_long_names_and_long_errors_stay_within_the_page(page, width):
    with emulated(page, width=width, height=700):
        page.execute_script("document.querySelector('#model').textContent = 'name/'.repeat(60)")
        settings(page, schema='{"type": "%s"}' % ("what" * 60))
        send(page, "w" * 300)
        until(page, lambda: all_of(page, ".turn .error"))
        assert_no_sideways(page, width)
        for element in all_of(page, "header button, .again"):
            assert_reachable(page, element)
