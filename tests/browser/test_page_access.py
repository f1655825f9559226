"""The page without a mouse, without eyes, and without motion."""

from __future__ import annotations

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import ENDLESS, TEXT, all_of, emulated, one, say, settings, texts_of, until


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
    first = ["show-chat", "show-infill", "show-decide", "new", "open-history", "open-settings", "conversation"]
    assert seen[: len(first)] == first
    assert [*dict.fromkeys(seen[len(first) :])][:4] == ["example", "text", "send", "compare"]


def test_every_control_has_a_name(page):
    one(page, "#open-settings").click()
    controls = all_of(page, "#settings input, #settings select, #settings textarea")
    names = [element.accessible_name for element in controls]
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
    settings(page, schema=ENDLESS, max_tokens="2000")
    page.find_element(By.ID, "text").send_keys(TEXT)
    one(page, "#send").click()
    until(page, lambda: all_of(page, ".canvas .token"))
    one(page, "#stop").click()
    until(page, lambda: texts_of(page, ".turn .error"))
    assert page.switch_to.active_element == one(page, "#text")
