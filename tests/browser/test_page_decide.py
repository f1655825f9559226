"""The decide view: questions are added, asked and answered with bars, by mouse, by keyboard and on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from chromium import all_of, click, emulated, one, texts_of, until

ANSWERED = "#decide .shares"
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")


@pytest.fixture
def view(page):
    click(page, "#show-decide")
    return page


def decide(page):
    page.execute_script("arguments[0].scrollIntoView()", one(page, "#ask-questions"))
    click(page, "#ask-questions")
    until(page, lambda: "answered" in one(page, "#decide-note").text)


def shares(page, question: int) -> list[float]:
    found = all_of(page, "#questions > li")[question].find_elements("css selector", ".share")
    return [float(share.text.removesuffix(" %")) for share in found]


def write(page, selector: str, text: str, number: int = -1):
    field = all_of(page, selector)[number]
    page.execute_script("arguments[0].scrollIntoView()", field)
    field.clear()
    field.send_keys(text)


def test_questions_of_all_types_are_answered_with_bars(view):
    decide(view)
    assert one(view, "#decide-note").text.startswith("3 of 3 answered")
    for question, count in enumerate((2, 3, 3)):
        found = shares(view, question)
        assert len(found) == count
        assert sum(found) == pytest.approx(100, abs=0.2)
        widths = view.execute_script(
            "return [...document.querySelectorAll('#questions > li')[arguments[0]].querySelectorAll('.bar')]"
            ".map((bar) => 100 * parseFloat(getComputedStyle(bar, '::before').width) / bar.clientWidth)",
            question,
        )
        assert widths == pytest.approx(found, abs=1.5), "a bar is as long as its number says"
    assert "level" in texts_of(view, ".answered .numbers")[2]
    assert "not calibrated" in texts_of(view, ".answered .numbers")[0]
    # What is changed is no longer what was answered.
    write(view, "#questions .instructions", "Is it about money?", 0)
    assert len(all_of(view, ANSWERED)) == 2
    write(view, "#state", "play some jazz")
    assert not all_of(view, ANSWERED)


def test_the_same_questions_have_the_same_answers_and_one_canvas_may_hold_them(view):
    decide(view)
    alone = [shares(view, question) for question in range(3)]
    decide(view)
    assert [shares(view, question) for question in range(3)] == alone
    click(view, "#joint")
    decide(view)
    assert [len(shares(view, question)) for question in range(3)] == [2, 3, 3]


def test_added_and_removed(view):
    for kind, count in (("predicate", 4), ("choice", 5), ("score", 6)):
        click(view, f"#add-{kind}")
        assert len(all_of(view, "#questions > li")) == count
        assert view.switch_to.active_element == all_of(view, "#questions .instructions")[-1]
    titles = texts_of(view, "#questions legend")
    assert titles[3:] == ["Question 4: yes or no", "Question 5: one of these", "Question 6: one of these levels"]
    for _ in range(6):
        click(view, "#questions .remove")
    assert view.switch_to.active_element == one(view, "#add-predicate")
    click(view, "#ask-questions")
    until(view, lambda: one(view, "#decide-note").text == "Add a question first.")
    click(view, "#add-choice")
    write(view, "#questions .instructions", "Which?")
    write(view, "#questions .options", "jazz: music: of a kind\nrain")
    decide(view)
    assert texts_of(view, ".shares li > span:first-child") == ["jazz", "rain"]


def test_a_question_that_cannot_be_asked_says_why_beside_the_others(view):
    write(view, "#questions .options", "same\nsame", 0)
    decide(view)
    assert one(view, "#decide-note").text.startswith("2 of 3 answered")
    assert "twice" in texts_of(view, ".answered .error")[0]
    assert (len(shares(view, 0)), len(shares(view, 1)), len(shares(view, 2))) == (2, 0, 3)


def test_by_keyboard_alone(view):
    one(view, "#show-decide").click()
    seen = []
    for _ in range(30):
        ActionChains(view).send_keys(Keys.TAB).perform()
        element = view.switch_to.active_element
        seen.append(element.get_attribute("id") or element.get_attribute("class"))
        if seen[-1] == "joint":
            break
    of_question = ["instructions", "remove"]
    assert [name for name in seen if name not in ("new", "open-history", "open-settings", "decide")] == [
        "state", *of_question, *of_question, "options", *of_question, "options",
        "add-predicate", "add-choice", "add-score", "ask-questions", "joint",
    ]  # fmt: skip
    one(view, "#questions .instructions").send_keys(Keys.ENTER)
    until(view, lambda: "answered" in one(view, "#decide-note").text)
    assert view.switch_to.active_element == one(view, "#ask-questions")
    for element in all_of(view, "#decide button, #decide input, #decide textarea"):
        assert not element.is_displayed() or element.accessible_name, element.get_attribute("outerHTML")
    assert all(bar.get_attribute("aria-hidden") == "true" for bar in all_of(view, ".bar"))
    assert all(each.accessible_name.startswith("Answer: ") for each in all_of(view, ".shares"))


@pytest.mark.parametrize(("width", "height", "letters"), [(390, 844, 16), (320, 568, 16), (390, 844, 32)])
def test_on_a_phone(view, width, height, letters):
    with emulated(view, width=width, height=height, letters=letters):
        write(view, "#questions .options", f"{'word' * 30}\nrain", 0)
        decide(view)
        assert view.execute_script("return document.documentElement.scrollWidth") <= width
        wide = view.execute_script(
            "return [...document.querySelectorAll('#decide *')].filter((e) => e.checkVisibility())"
            ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 100))"
        )
        assert wide == []
        for element in all_of(view, "#decide button, #decide .share"):
            if element.is_displayed():
                view.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
                box = element.rect
                assert box["width"] > 0
                assert box["x"] + box["width"] <= width + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_it_can_be_read(view, scheme):
    with emulated(view, scheme=scheme):
        decide(view)
        looked = view.execute_script(CONTRAST, 4.5)
        assert looked["seen"] > 20
        assert looked["found"] == []
