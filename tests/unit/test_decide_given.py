"""Questions as clients write them: both wire formats, ours, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from redraft.core.calibration import Calibration
from redraft.core.decisions import Refusal
from redraft.core.errors import OptionError, QuestionError
from redraft.core.questions import NO, YES, DecideOptions, Option, Question, choice, predicate, score
from redraft.decide.given import questions_of

CHOICE = {"type": "choice", "instructions": "Which?", "choices": [{"value": "a"}, {"value": "b"}]}


def refused(question: Any) -> str:
    """Why a question cannot be asked, of one that stands beside another that can."""
    found = questions_of([question, CHOICE])
    assert isinstance(found[1], Question)
    assert isinstance(found[0], Refusal), found[0]
    assert found[0].code == "invalid_question"
    assert "\n" not in found[0].reason
    return found[0].reason


def test_openai_s_list():
    found = questions_of([
        {"type": "predicate", "name": "spam", "instructions": "Is it spam?"},
        {
            "type": "choice",
            "instructions": [{"type": "input_text", "text": "Which"}, {"type": "input_json", "data": {"of": ["ä"]}}],
            "choices": [{"value": True, "description": "fine"}, {"value": "true"}, {"value": "x", "description": None}],
        },
        {"type": "score", "instructions": "How?", "levels": [{"label": "low"}, {"label": "high", "description": "!"}]},
    ])  # fmt: skip
    assert found == [
        predicate("Is it spam?", name="spam"),
        Question(
            kind="choice",
            instructions='Which\n{"of": ["ä"]}',
            options=(Option(value=True, description="fine"), Option(value="true"), Option(value="x")),
        ),
        score("How?", {"low": None, "high": "!"}),
    ]


def test_system_one_s_map():
    found = questions_of({
        "spam": {"type": "noul", "instructions": "Is it spam?", "criteria": {"true": "unwanted", "false": None}},
        "type": {"type": "choice", "instructions": {"q": "which"}, "criteria": {"a": "1st", "b": None, "c": {"d": 1}}},
        "how": {"type": "score", "instructions": ["How", "much?"], "criteria": ["low", "high"]},
    })  # fmt: skip
    assert found == [
        predicate("Is it spam?", name="spam", true="unwanted"),
        choice('{"q": "which"}', {"a": "1st", "b": None, "c": '{"d": 1}'}, name="type"),
        score('["How", "much?"]', ["low", "high"], name="how"),
    ]


def test_ours():
    one = predicate("Is it?")
    assert questions_of(one) == [one]
    assert questions_of((one, CHOICE)) == [one, choice("Which?", ["a", "b"])]
    assert questions_of({"type": "bool", "instructions": "Is it?"}) == [one]
    plain = {"type": "choice", "instructions": "Which?", "choices": ["a", "b"], "form": "text"}
    assert questions_of([plain]) == [choice("Which?", ["a", "b"], form="text")]
    reply = {
        "type": "choice",
        "form": "reply",
        "choices": [{"value": "play", "reply": "<|tool_call>call:Play"}, "none"],
    }
    options = (Option(value="play", reply="<|tool_call>call:Play"), Option(value="none"))
    assert questions_of([reply]) == [Question(kind="choice", instructions="", options=options, form="reply")]
    assert questions_of([{"type": "score", "instructions": "How?", "levels": {"low": "x", "high": None}}]) == [
        score("How?", {"low": "x", "high": None})
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"choices": [{"value": "a"}, {"value": "a"}]}, "choices hold 'a' twice"),
        ({"choices": [{"value": "a"}]}, "choices must be 2 to 255, got 1"),
        ({"choices": [str(n) for n in range(256)]}, "choices must be 2 to 255, got 256"),
        ({"choices": [{"value": "a"}, {"value": " "}]}, "choices hold an empty text"),
        ({"choices": [{"value": "a"}, {"value": 3}]}, "choices must be text or true or false, got 3"),
        ({"choices": [{"value": "a"}, {"worth": 3}]}, "choices hold an option with 'worth', which is no field of one"),
        ({"choices": ["a", {"description": "b"}]}, "choices hold an option without a value: {'description': 'b'}"),
        ({"choices": {"a": None, "b": 7}}, "choices hold a description that is neither text nor JSON: 7"),
        ({"choices": ["a", {"value": "b", "reply": ""}]}, "choices hold an option whose reply is no text: ''"),
        ({"choices": "ab"}, "choices must be a list, or a map of each to what it means, got 'ab'"),
        ({"choices": None}, "choices are missing: say what may be answered"),
        ({"criteria": {"a": None}}, "choices stand beside criteria: give one of them"),
        ({"instructions": None}, "instructions are missing: say what is asked"),
        ({"instructions": "  "}, "instructions are empty: say what is asked"),
        ({"instructions": []}, "instructions are empty: say what is asked"),
        ({"instructions": 5}, "instructions must be text or JSON, got 5"),
        ({"instructions": {"x": float("nan")}}, "instructions must be text or JSON, got {'x': nan}"),
        ({"instructions": "\ud800"}, "question a text holds half of a surrogate pair, which is no character"),
        ({"type": "box"}, "type must be one of predicate, noul, bool, choice, score, got 'box'"),
        ({"type": ["choice"]}, "type must be one of predicate, noul, bool, choice, score, got ['choice']"),
        ({"levels": ["a"]}, "'levels' is no field of a choice"),
        ({"images": []}, "'images' is no field of a choice"),
        ({"name": 5}, "name must be a text, got 5"),
        ({"form": "letters"}, "form must be one of auto, label, text, reply, got 'letters'"),
        (
            {"choices": ["a", {"value": "b", "reply": "c"}]},
            "choices hold a reply, 'c', which nothing but form 'reply' reads",
        ),
        ({"form": "reply"}, "instructions are not asked with form 'reply': leave them out"),
        ({"form": {}}, "form must be one of auto, label, text, reply, got {}"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_by_name(changes, reason):
    assert refused({**CHOICE, **changes}) == reason


def test_parts_that_cannot_be_read_are_refused_by_name():
    image = {"type": "input_image", "image_url": "https://example.com/a.png"}
    said = {"type": "input_text", "text": "What is this?"}
    assert (
        refused({**CHOICE, "instructions": [said, image]})
        == "instructions hold an image: it belongs to the state that is asked about"
    )
    for part in ({"type": "input_text"}, {"type": "input_json", "data": 5}, {"type": "input_audio"}, "text"):
        reason = refused({**CHOICE, "instructions": [said, part]})
        assert reason == f"instructions hold {part!r}, which is neither input_text nor input_json"


def test_other_kinds_are_refused_by_name():
    level = {"type": "score", "instructions": "How?"}
    assert refused({**level, "levels": ["low", True]}) == "levels must be text, got True"
    assert refused({**level, "levels": [{"value": "low"}, "b"]}).startswith("levels hold an option with 'value'")
    assert refused({**level, "criteria": [str(n) for n in range(11)]}) == "levels must be 2 to 10, got 11"
    noul = {"type": "noul", "instructions": "Is it?"}
    assert refused({**noul, "criteria": {"yes": "x"}}) == "criteria of a yes or no are true and false, got 'yes'"
    assert refused({**noul, "criteria": ["x"]}).startswith("criteria of a yes or no must be an object")
    assert refused("Is it?") == "question must be an object, got 'Is it?'"


def test_a_refusal_keeps_its_name_and_its_place():
    found = questions_of({"one": {"type": "noul"}, "": {"type": "noul", "instructions": "?"}, "two": CHOICE})
    assert [each.name for each in found] == ["one", "", "two"]
    assert isinstance(found[1], Refusal)
    assert found[1].reason == "name must be a text, got ''"
    assert [each.name for each in questions_of([{"name": "x"}, {"name": 5}])] == ["x", None]
    half = questions_of({"\ud800": CHOICE})[0]
    assert isinstance(half, Refusal)
    assert half.name is None
    assert half.reason == "question a text holds half of a surrogate pair, which is no character"
    twice = questions_of({"one": {**CHOICE, "name": "two"}})[0]
    assert isinstance(twice, Refusal)
    assert twice.reason == "name stands before the question already"


@pytest.mark.parametrize("value", [None, "Is it?", 5, b"x", [], {}, [CHOICE] * 401])
def test_what_are_no_questions_at_all_is_an_error(value):
    with pytest.raises(QuestionError, match="^questions must be ") as raised:
        questions_of(value)
    assert raised.value.field == "questions"
    assert len(questions_of([CHOICE] * 400)) == 400


A, B = Option(value="a"), Option(value="b")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: choice("?", "ab"), "choices must be a list, or a map of each to what it means, got 'ab'"),
        (lambda: choice("?", {"a"}), "choices must be a list, or a map of each to what it means, got {'a'}"),
        (lambda: choice("?", None), "choices must be a list, or a map of each to what it means, got None"),
        (lambda: choice("?", ["a", 3]), "choices must be text or true or false, got 3"),
        (lambda: choice("?", ["a", None]), "choices must be text or true or false, got None"),
        (lambda: choice("?", ["a", ["b"]]), "choices must be text or true or false, got ['b']"),
        (lambda: choice("?", {"a": 3, "b": None}), "choices hold a description that is no text: 3"),
        (lambda: choice("", [A, Option(value="b", reply=3)], form="reply"), "choices hold an option whose reply is"),
        (lambda: choice("", [A, Option(value="b", reply="")], form="reply"), "choices hold an option whose reply is"),
        (lambda: choice("?", [A, Option(value="b", reply="c")]), "choices hold a reply, 'c', which nothing but form"),
        (lambda: choice("?", [A, B], form="reply"), "instructions are not asked with form 'reply': leave them out"),
        (lambda: choice("?", ["a", "b"], form="words"), "form must be one of auto, label, text, reply, got 'words'"),
        (lambda: choice("?", ["a", "b"], name=""), "name must be a text, got ''"),
        (lambda: choice(3, ["a", "b"]), "instructions must be text, got 3"),
        (lambda: predicate(None), "instructions must be text, got None"),
        (lambda: predicate("?", name=5), "name must be a text, got 5"),
        (lambda: predicate("?", true=5), "options hold a description that is no text: 5"),
        (lambda: score("?", "ab"), "levels must be a list, or a map of each to what it means, got 'ab'"),
        (lambda: score("?", ["a"]), "levels must be 2 to 10, got 1"),
        (lambda: score("?", [str(n) for n in range(11)]), "levels must be 2 to 10, got 11"),
        (lambda: score("?", ["a", "a"]), "levels hold 'a' twice"),
        (lambda: score("?", ["a", ""]), "levels hold an empty text"),
        (lambda: score("?", ["a", True]), "levels must be text, got True"),
        (lambda: Question(kind="box", instructions="?", options=(A, B)), "kind must be one of predicate, choice"),
        (lambda: Question(kind="choice", instructions="?", options=("a", "b")), "choices must each be an Option, got"),
        (lambda: Question(kind="choice", instructions="?", options="ab"), "choices must be a tuple of Option, got"),
        (lambda: Question(kind="predicate", instructions="?", options=(NO, YES)), "options of a yes or no must be"),
        (lambda: Question(kind="predicate", instructions="?", options=(YES,)), "options of a yes or no must be"),
        (lambda: Question(kind="predicate", instructions="?", options=(A, B)), "options of a yes or no must be"),
    ],
)  # fmt: skip
def test_what_no_question_can_be_is_refused_where_it_is_made(make, reason):
    with pytest.raises(QuestionError) as raised:
        make()
    assert str(raised.value).startswith(reason)
    assert raised.value.field == reason.split()[0]


def test_options_in_a_list_are_kept_as_a_tuple():
    assert Question(kind="choice", instructions="?", options=[A, B]) == choice("?", ["a", "b"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"agree": True, "second_reader": False}, "agree compares two readers, so it needs second_reader"),
        ({"agree": True, "gate_nats": None}, "agree compares two readers, so it needs a gate"),
        ({"calibration": "cal.json"}, "calibration must be a Calibration or None, got 'cal.json': redraft.decide.cal"),
        ({"calibration": {"temperatures": {}}}, "calibration must be a Calibration or None, got {'temperatures': {}}"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(given, said):
    with pytest.raises(OptionError, match=said):
        DecideOptions(**given)
    assert DecideOptions(agree=True, calibration=Calibration(temperatures={})).agree
