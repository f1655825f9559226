"""The page in a real browser, against the real server."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import ENDLESS, TEXT, all_of, click, emulated, say, send, settings, until


def test_a_canvas_draws_live_and_can_be_replayed(page):
    page.execute_script("""
        window.seen = new Set();
        const look = () => document.querySelectorAll(".canvas:not([hidden])").forEach((c) => seen.add(c.innerHTML));
        const all = { subtree: true, childList: true, characterData: true, attributes: true };
        new MutationObserver(look).observe(document.body, all);
    """)
    settings(page, seed="0")
    say(page, "put some Miles Davis on my late night jazz playlist")
    assert page.execute_script("return seen.size") > 3, "drafts were painted while they formed"
    assert 'AddToPlaylist(artist="' in all_of(page, ".calls")[0].text
    assert "steps" in all_of(page, ".reply > .numbers")[0].text
    canvas = all_of(page, ".canvas")[0]
    assert not canvas.is_displayed()
    scrubber = all_of(page, ".scrubber")[0]
    last = int(scrubber.get_attribute("max"))
    scrubber.send_keys(Keys.HOME)
    until(page, canvas.is_displayed)
    assert all_of(page, ".token.renoised"), "the first step leaves most of the canvas to be drawn anew"
    first = canvas.text
    scrubber.send_keys(Keys.ARROW_RIGHT)
    assert "step 2:" in all_of(page, ".player output")[0].text
    all_of(page, ".replay")[0].click()
    until(page, lambda: scrubber.get_property("value") == str(last))
    assert canvas.text != first
    assert "AddToPlaylist" in canvas.text


def test_a_conversation_goes_on_and_is_kept_in_the_browser(page):
    say(page, "how do i bake bread")
    say(page, replies=2)
    until(page, lambda: all_of(page, "#send")[0].is_enabled())
    page.refresh()
    until(page, lambda: page.find_element(By.ID, "model").text == "mini")
    assert not all_of(page, ".turn")
    page.find_element(By.ID, "open-history").click()
    title = until(page, lambda: all_of(page, "#conversations .title"))[0]
    assert title.text == "how do i bake bread"
    title.click()
    assert len(all_of(page, ".turn")) == 2
    all_of(page, ".replay")[1].click()
    until(page, lambda: len(all_of(page, ".canvas:not([hidden]) .token")) > 10)
    page.find_element(By.ID, "open-history").click()
    click(page, "#conversations li button", 1)
    until(page, lambda: not all_of(page, ".turn"))


def test_a_reply_can_be_stopped(page):
    # Several canvases, each harder than what mini has learnt.
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 100}
    settings(page, schema=json.dumps(schema), max_tokens="2000")
    page.find_element(By.ID, "text").send_keys(TEXT, Keys.ENTER)
    until(page, lambda: all_of(page, ".canvas:not([hidden]) .token"))
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    until(page, lambda: [e for e in all_of(page, ".turn .error") if e.text.startswith("Stopped")])
    settings(page, schema="", max_tokens="100")
    say(page)


def test_settings_reach_the_server_and_errors_the_reader(page):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    settings(page, schema=json.dumps(schema), seed="4", preset="fast")
    say(page)
    assert isinstance(json.loads(all_of(page, ".answer")[0].text)["age"], int)
    settings(page, schema='{"type": "what"}')
    page.find_element(By.ID, "text").send_keys(TEXT, Keys.ENTER)
    until(page, lambda: [e for e in all_of(page, ".turn .error") if "what" in e.text])
    settings(page, schema="{")
    page.find_element(By.ID, "text").send_keys(TEXT, Keys.ENTER)
    until(page, lambda: [e for e in all_of(page, ".turn .error") if "no JSON" in e.text])


def test_the_page_uses_what_the_model_knows_by_heart_and_says_so(page):
    known = page.find_element(By.ID, "known")
    until(page, lambda: known.text == "knows 7 calls by heart")
    assert "PlayMusic" in known.get_attribute("title")
    say(page)
    assert "PlayMusic(" in all_of(page, ".calls")[0].text


@pytest.mark.parametrize("seed", [str(2**53 - 1), "7326286665462268123", str(2**64 - 1)])
def test_a_seed_stays_the_number_that_was_typed(page, seed):
    settings(page, seed=seed)
    say(page)
    assert f"seed {seed}" in all_of(page, ".reply > .numbers")[0].text


def test_doubts_are_underlined(page):
    settings(page, judge="on", seed="0")
    say(page, "rate this 7")
    doubts = all_of(page, ".raw .doubt")
    assert doubts, "the causal mode would hardly have written that"
    assert all(doubt.text for doubt in doubts)
    assert "probability" in doubts[0].get_attribute("title")


def test_side_by_side(page):
    page.find_element(By.ID, "compare").click()
    settings(page, seed="0")
    say(page, replies=2)
    assert [e.text for e in all_of(page, ".reply h3")] == ["Diffusion", "Autoregressive"]
    left, right = all_of(page, ".reply > .numbers")
    assert "steps" in left.text
    assert "forwards" in right.text
    places = [element.rect for element in all_of(page, ".reply")]
    assert places[0]["y"] == places[1]["y"]
    assert places[0]["x"] < places[1]["x"]


def test_a_selected_part_is_written_anew(page):
    page.find_element(By.ID, "show-infill").click()
    draft = page.find_element(By.ID, "draft")
    text = "play 🎵 jazz by Nina Simone"
    page.execute_script("arguments[0].value = arguments[1]; arguments[0].setSelectionRange(8, 12)", draft, text)
    page.find_element(By.ID, "redraft").click()
    until(page, lambda: "steps" in page.find_element(By.ID, "fill-note").text)
    now = draft.get_property("value")
    assert now.startswith("play 🎵 ")
    assert now.endswith(" by Nina Simone")
    page.find_element(By.ID, "undo").click()
    assert draft.get_property("value") == text
    page.execute_script("arguments[0].setSelectionRange(0, 0)", draft)
    page.find_element(By.ID, "redraft").click()
    until(page, lambda: "[[...]]" in page.find_element(By.ID, "fill-note").text)


def test_what_is_selected_in_a_reply_goes_to_the_infill_view(page):
    say(page, "how do i bake bread")
    page.execute_script("getSelection().selectAllChildren(document.querySelector('.answer'))")
    page.execute_script("getSelection().extend(document.querySelector('.answer').firstChild, 10)")
    selected = page.execute_script("return String(getSelection())")
    assert len(selected) == 10
    until(page, lambda: all_of(page, ".edit"))[0].click()
    draft = page.find_element(By.ID, "draft")
    assert draft.is_displayed()
    assert (draft.get_property("selectionStart"), draft.get_property("selectionEnd")) == (0, 10)
    assert draft.get_property("value").startswith(selected)


def test_dark_and_light(page):
    def paper():
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    found = {}
    for scheme in ("light", "dark"):
        with emulated(page, scheme=scheme):
            found[scheme] = paper()
    assert found == {"light": "rgb(251, 250, 247)", "dark": "rgb(22, 24, 26)"}
    with emulated(page, scheme="dark"):
        settings(page, theme="light")
        assert paper() == found["light"]


def test_what_a_model_or_user_writes_is_never_markup(page):
    say(page, "<img src=x onerror=\"document.title='gone'\"> play <b>jazz</b>")
    assert page.title == "redraft"
    assert "<b>jazz</b>" in all_of(page, ".user")[0].text
    assert not all_of(page, "#conversation img")


def test_a_conversation_that_is_deleted_while_it_runs_stays_away(page):
    settings(page, schema=ENDLESS, max_tokens="2000")
    send(page)
    until(page, lambda: all_of(page, ".canvas .token"))
    page.find_element(By.ID, "open-history").click()
    click(page, "#conversations li button", 1)
    until(page, lambda: page.find_element(By.ID, "none-kept").is_displayed())
    all_of(page, "#history form button")[0].click()
    until(page, lambda: page.find_element(By.ID, "send").is_enabled())
    page.find_element(By.ID, "open-history").click()
    assert until(page, lambda: page.find_element(By.ID, "none-kept").is_displayed())
