"""What somebody finds who opens the page for the first time: what it is, what to try, and what the colours mean."""

from __future__ import annotations

import json
import shutil

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chromium import all_of, click, one, open_page, say, send, settings, texts_of, until
from redraft.checkpoint.locate import BUNDLED
from servers import serving_with

EXAMPLES = json.loads((BUNDLED / "mini" / "introduction.json").read_text(encoding="utf-8"))["examples"]
CALLS = [tool["function"]["name"] for tool in json.loads((BUNDLED / "mini" / "tools.json").read_text())["tools"]]


def test_the_empty_page_says_what_the_model_is_and_can_do(page):
    said = one(page, ".welcome").text
    for part in ("mini", "4.5 million parameters", "a canvas of 48 tokens", "a context of 2,048 tokens", "float32"):
        assert part in said
    assert "toy" in said
    assert "one call" in said
    assert texts_of(page, ".welcome code") == CALLS
    assert "Conversations are kept in this browser, under History, and nowhere else." in said


def test_the_infill_view_opens_with_what_the_model_can_fill(page):
    click(page, "#show-infill")
    until(page, lambda: "call:PlayMusic" in one(page, "#draft").get_property("value"))
    one(page, "#redraft").click()
    until(page, lambda: 'artist:<|"|>Nina Simone<|"|>' in one(page, "#draft").get_property("value"))


def test_an_example_is_sent_and_answered_and_leaves_what_was_typed(page):
    assert texts_of(page, ".example") == EXAMPLES
    one(page, "#text").send_keys("half a sent")
    click(page, ".example")
    until(page, lambda: all_of(page, ".reply > .numbers"))
    assert texts_of(page, ".user") == [EXAMPLES[0]]
    assert texts_of(page, ".calls") == ['GetWeather(condition_description="snow", city="Oslo", timeRange="Friday")']
    assert one(page, "#text").get_property("value") == "half a sent"
    assert not all_of(page, ".example")
    one(page, "#new").click()
    assert texts_of(page, ".example") == EXAMPLES


def test_a_message_right_after_a_reload_waits_for_the_model(page):
    page.refresh()
    send(page)
    until(page, lambda: all_of(page, ".reply > .numbers"))
    assert "PlayMusic(" in texts_of(page, ".calls")[0]


def test_a_canvas_has_a_legend_that_is_drawn_as_the_canvas_is(page):
    settings(page, seed="0")
    say(page)
    assert not one(page, ".legend").is_displayed(), "a finished reply shows no canvas"
    one(page, ".scrubber").send_keys(Keys.HOME)
    legend = until(page, lambda: one(page, ".drawing:not([hidden]) .legend"))
    for word in ("settled", "moving, less and less sure", "doubted", "end of the reply"):
        assert word in legend.text
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    for state, what in (("settled", "color"), ("renoised", "color"), ("renoised", "textDecorationLine")):
        drawn = page.execute_script(style, f".canvas .{state}", what)
        assert drawn == page.execute_script(style, f".legend .{state}", what)
    tints = page.execute_script("""
        return [...document.querySelectorAll(".legend .renoised")].map((e) => getComputedStyle(e).backgroundColor);
    """)
    assert len(set(tints)) == 3, "the stronger, the less sure"


def test_what_is_doubted_is_explained_where_it_stands(page):
    settings(page, judge="on", seed="0")
    say(page, "rate this 7")
    shown = [element for element in all_of(page, ".legend") if element.is_displayed()]
    assert [element.text for element in shown] == ["doubted: the causal mode would hardly have written this"]


def test_what_ends_a_reply_is_one_mark_in_every_step(page):
    page.execute_script("""
        window.seen = [];
        const look = () => {
          for (const drawn of document.querySelectorAll(".drawing:not([hidden]) .canvas")) seen.push(drawn.textContent);
        };
        new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
    """)
    say(page, "how do i bake bread")
    seen = page.execute_script("return seen")
    assert seen
    for text in seen:
        for token in ("<eos>", "<turn|>", "<pad>"):
            assert token not in text
    one(page, ".replay").click()
    mark = until(page, lambda: all_of(page, ".canvas .end"))[-1]
    assert mark.text.startswith("end ×")
    count = int(mark.text.removeprefix("end ×"))
    assert count > 20
    assert f"{count} tokens" in mark.get_attribute("title")
    # What is folded still counts.
    assert one(page, ".player output").text.endswith("of 48 settled")
    assert len(all_of(page, ".canvas .token")) + count - 1 == 48


def served_as(folder, **introduction):
    """A copy of mini that says this of itself, or nothing."""
    shutil.copytree(BUNDLED / "mini", folder, dirs_exist_ok=True)
    (folder / "introduction.json").unlink()
    if introduction:
        (folder / "introduction.json").write_text(json.dumps(introduction))
    return folder


def test_another_model_is_introduced_by_its_own_words(chrome, tmp_path):
    folder = served_as(tmp_path, about="It rhymes <b>.", examples=["<i>rhyme</i>"])
    with serving_with(served=str(folder), model="rhymer", log_prompts=None) as (_, port):
        open_page(chrome, port, model="rhymer")
        until(chrome, lambda: all_of(chrome, ".example"))
        assert "It rhymes <b>." in one(chrome, ".welcome").text
        assert texts_of(chrome, ".example") == ["<i>rhyme</i>"]


def test_a_general_model_gets_general_requests_and_no_calls(chrome, tmp_path):
    folder = served_as(tmp_path)
    (folder / "tools.json").unlink()
    with serving_with(served=str(folder), model="general") as (_, port):
        open_page(chrome, port, model="general")
        until(chrome, lambda: len(all_of(chrome, ".example")) == 4)
        assert "by heart" not in one(chrome, "body").text
        assert one(chrome, "#known").text == ""


def test_a_model_without_a_chat_template_writes_on_and_says_so(chrome, tmp_path):
    folder = served_as(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with serving_with(served=str(folder), model="bare") as (_, port):
        open_page(chrome, port, model="bare")
        until(chrome, lambda: "no chat template" in one(chrome, ".welcome").text)
        assert not all_of(chrome, ".example")
        say(chrome, "play some jazz")
        assert not all_of(chrome, ".turn .error")


def test_a_model_without_a_tokenizer_says_what_it_takes(chrome, tmp_path):
    folder = served_as(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tools.json"):
        (folder / name).unlink()
    with serving_with(served=str(folder), model="ids") as (_, port):
        open_page(chrome, port, model="ids")
        until(chrome, lambda: "no tokenizer" in one(chrome, ".welcome").text)
        assert not one(chrome, "#text").is_enabled()
        assert not one(chrome, "#send").is_enabled()


def test_a_server_that_writes_prompts_down_is_said_to(chrome, tmp_path):
    before = "from pathlib import Path; settings['log_prompts'] = Path(settings['log_prompts'])"
    with serving_with(before, log_prompts=str(tmp_path / "log.jsonl")) as (_, port):
        open_page(chrome, port)
        until(chrome, lambda: "writes every request" in one(chrome, ".welcome").text)
        one(chrome, "#open-history").click()
        until(chrome, lambda: "writes every request" in one(chrome, "#kept-where").text)


def test_presets_are_the_servers(page):
    from redraft.core.presets import PRESETS

    until(page, lambda: len(texts_of(page, "#set-preset option")) > 1)
    assert page.execute_script("return [...document.querySelector('#set-preset').options].map((o) => o.value)") == [
        "", *(name for name in PRESETS if name != "default"),
    ]  # fmt: skip
    page.execute_script("""localStorage.setItem("settings", JSON.stringify({ preset: "one that was renamed" }))""")
    page.refresh()
    until(page, lambda: page.find_element(By.ID, "model").text == "mini")
    say(page)
    assert not all_of(page, ".turn .error")


@pytest.mark.parametrize("text", ["שלום, נגן ג'אז", "hello"])
def test_what_is_written_from_right_to_left_stands_so(page, text):
    say(page, text)
    direction = page.execute_script("return getComputedStyle(document.querySelector('.user')).direction")
    assert direction == ("rtl" if text[0] > "z" else "ltr")
