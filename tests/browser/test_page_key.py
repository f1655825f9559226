"""The key, where the page has none or a wrong one: it is asked for, and nothing is lost over it."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import all_of, emulated, one, open_page, send, texts_of, until
from servers import KEY, serving_with


def is_asked(page) -> bool:
    return bool(all_of(page, "#key[open]"))


def give(page, key: str):
    field = one(page, "#key-field")
    field.clear()
    field.send_keys(key, Keys.ENTER)


@pytest.fixture
def keyless(chrome, page_port):
    """The page, opened without the key."""
    open_page(chrome, page_port, "", model=None)
    until(chrome, lambda: is_asked(chrome))
    return chrome


def test_a_page_without_the_key_asks_and_goes_on(keyless):
    field = one(keyless, "#key-field")
    assert field == keyless.switch_to.active_element
    assert field.accessible_name == "Key"
    assert (field.get_attribute("type"), field.get_attribute("autocomplete")) == ("password", "current-password")
    assert all_of(keyless, "#key-form input[autocomplete=username]")
    give(keyless, "wrong")
    until(keyless, lambda: one(keyless, "#key-wrong").text == "This is not the server's key.")
    assert field.get_attribute("aria-invalid") == "true"
    give(keyless, "schlüssel…")
    until(keyless, lambda: "ASCII" in one(keyless, "#key-wrong").text)
    give(keyless, f" {KEY} ")
    until(keyless, lambda: one(keyless, "#model").text == "mini")
    assert not is_asked(keyless)
    assert one(keyless, "#trouble").text == ""
    # It lasts as long as the tab.
    keyless.refresh()
    until(keyless, lambda: one(keyless, "#model").text == "mini")


def test_the_whole_link_will_do(keyless):
    give(keyless, f"mini: http://127.0.0.1:8000/#key={KEY}")
    until(keyless, lambda: one(keyless, "#model").text == "mini")


def test_the_link_may_be_opened_where_the_page_is_open(keyless):
    keyless.execute_script("location.hash = arguments[0]", f"key={KEY}")
    until(keyless, lambda: one(keyless, "#model").text == "mini")
    until(keyless, lambda: not is_asked(keyless))
    assert KEY not in keyless.current_url


def test_who_has_no_key_now_can_give_it_later(keyless):
    one(keyless, "#no-key").click()
    until(keyless, lambda: "wants its key" in one(keyless, "#trouble").text)
    send(keyless, "play some jazz")
    until(keyless, lambda: is_asked(keyless))
    keyless.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(keyless, lambda: "wants its key" in one(keyless, ".turn").text)
    assert texts_of(keyless, ".user") == ["play some jazz"]
    one(keyless, "#trouble button").click()
    until(keyless, lambda: is_asked(keyless))
    give(keyless, KEY)
    until(keyless, lambda: one(keyless, "#model").text == "mini")
    one(keyless, ".again").click()
    until(keyless, lambda: all_of(keyless, ".reply > .numbers"))
    assert not all_of(keyless, ".turn .error")


@pytest.mark.parametrize("view", ["chat", "infill"])
def test_a_key_that_no_longer_fits_is_asked_for_and_the_request_goes_on(page, view):
    # As after a restart of the server: this page still has the key of before.
    page.execute_script("sessionStorage.setItem('key', 'of yesterday')")
    page.refresh()
    until(page, lambda: is_asked(page))
    assert "not the server's" in one(page, "#key-wrong").text
    one(page, "#no-key").click()
    until(page, lambda: not is_asked(page))
    if view == "chat":
        send(page, "play some jazz")
    else:
        one(page, "#show-infill").click()
        one(page, "#redraft").click()
    until(page, lambda: is_asked(page))
    give(page, KEY)
    done = ".reply > .numbers" if view == "chat" else "#fill-note"
    until(page, lambda: all_of(page, done) and "steps" in one(page, done).text)
    assert not all_of(page, "#chat .error, #infill .error")


def test_a_server_without_a_key_asks_for_none(chrome):
    with serving_with(api_key=None) as (_, port):
        open_page(chrome, port, "")
        until(chrome, lambda: all_of(chrome, ".example"))
        assert not is_asked(chrome)
        assert chrome.execute_script("return sessionStorage.getItem('key')") is None


def test_the_form_fits_a_narrow_screen(keyless):
    with emulated(keyless, width=320, height=640):
        box = one(keyless, "#key").rect
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
        for name in ("key-field", "use-key", "no-key"):
            assert keyless.find_element(By.ID, name).is_displayed()
