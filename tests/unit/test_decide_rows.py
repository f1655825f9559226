"""Labelled rows: what is right about a state, and which line of a file says it wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redraft.core.errors import DataError
from redraft.core.questions import choice, predicate, score
from redraft.decide.given import questions_of
from redraft.decide.rows import read_rows, shares_of
from redraft.decide.state import State

SPAM = predicate("Is it spam?", name="spam")
TONE = choice("Which tone?", ["calm", "angry", "true", True], name="tone")
URGENCY = score("How urgent?", ["low", "some", "1"], name="urgency")
QUESTIONS = [SPAM, TONE, URGENCY]


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_rows_hold_states_and_what_is_right(tmp_path):
    path = written(
        tmp_path,
        {"state": "Buy now!", "answers": {"spam": True, "tone": "angry", "urgency": 2}},
        "",
        {"state": {"subject": "x"}, "answers": {"urgency": "some", "tone": None}},
        {"state": [{"role": "user", "content": "Hi"}], "answers": {"tone": {"calm": 0.75, "angry": 0.25}}},
    )
    first, second, third = read_rows(path, QUESTIONS)
    assert (first.line, first.state, first.questions) == (1, State(text="Buy now!"), (SPAM, TONE, URGENCY))
    assert first.shares == ((1, 0), (0, 1, 0, 0), (0, 0, 1))
    assert (second.line, second.state.text, second.questions) == (3, '{"subject": "x"}', (URGENCY, TONE))
    assert second.shares == ((0, 1, 0), (0, 0, 0, 0))
    assert third.state.messages[0]["content"] == "Hi"
    assert third.shares == ((0.75, 0.25, 0, 0),)


def test_a_row_may_bring_its_own_questions(tmp_path):
    asked = {"good": {"type": "noul", "instructions": "Is it good?"}}
    path = written(tmp_path, {"state": "x", "questions": asked, "answers": {"good": False}})
    (row,) = read_rows(path)
    assert row.questions == (predicate("Is it good?", name="good"),)
    assert row.shares == ((0, 1),)


def test_answers_are_told_apart_by_their_type():
    assert shares_of(TONE, True) == (0, 0, 0, 1)
    assert shares_of(TONE, "true") == (0, 0, 1, 0)
    # A number is a level's, a text its label.
    assert shares_of(URGENCY, 1) == (0, 1, 0)
    assert shares_of(URGENCY, "1") == (0, 0, 1)
    assert shares_of(URGENCY, {"0": 0.5, "1": 0.5}) == (0.5, 0, 0.5)
    assert shares_of(SPAM, {"true": 0.2, "no": 0.8}) == (0.2, 0.8)
    # Shares are written with a few digits.
    assert shares_of(TONE, {"calm": 0.333, "angry": 0.333, "true": 0.333}) == pytest.approx((1 / 3,) * 3 + (0,))


def refused(path: Path) -> str:
    """What is said of the second line."""
    with pytest.raises(DataError) as raised:
        read_rows(path, QUESTIONS)
    assert raised.value.line == 2
    start = f"{path}, line 2: "
    assert str(raised.value).startswith(start)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(start)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "must be an object with state and answers, got []"),
        ({"state": "x", "answers": {"spam": True}, "label": 1}, "'label' is no field of a row; there is state,"),
        ({"state": "x"}, "answers must be an object of names and what is right"),
        ({"state": "x", "answers": {}}, "answers must be an object of names and what is right"),
        ({"answers": {"spam": True}}, "state must be a text, a conversation or JSON, got None"),
        ({"state": " ", "answers": {"spam": True}}, "state is empty"),
        ({"state": "x", "answers": {"spam": True}, "questions": 5}, "questions must be a list of questions"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, row, said):
    right = {"state": "Buy now!", "answers": {"spam": True}}
    assert refused(written(tmp_path, right, row)).startswith(said)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"ham": True}, "answers name 'ham', and the questions are 'spam', 'tone', 'urgency'"),
        ({"spam": 1}, "answers to 'spam' must be one of True, False, got 1"),
        ({"tone": "Calm"}, "answers to 'tone' must be one of 'calm', 'angry', 'true', True, got 'Calm'"),
        ({"tone": ["calm"]}, "answers to 'tone' must be one of 'calm', 'angry', 'true', True, got ['calm']"),
        ({"urgency": 3}, "answers to 'urgency' must be a level from 0 to 2, got 3"),
        ({"urgency": True}, "answers to 'urgency' must be one of 'low', 'some', '1', got True"),
        ({"spam": {"true": 0.5}}, "answers to 'spam' have shares that sum to 0.5, not to 1"),
        ({"spam": {"true": "1"}}, "answers to 'spam' give 'true' a share that is no number from 0 to 1: '1'"),
        ({"spam": {"maybe": 1}}, "answers to 'spam' must be one of True, False, got 'maybe'"),
    ],
)
def test_a_wrong_answer_is_named_by_its_question(tmp_path, answers, said):
    right = {"state": "Buy now!", "answers": {"spam": True}}
    assert refused(written(tmp_path, right, {"state": "x", "answers": answers})) == said


def test_a_row_s_own_questions_must_be_such_that_can_be_asked(tmp_path):
    right = {"state": "Buy now!", "answers": {"spam": True}}
    wrong = {"state": "x", "answers": {"a": True}, "questions": [{"type": "noul"}]}
    assert refused(written(tmp_path, right, wrong)).startswith("question 1 cannot be asked: instructions are missing")
    nameless = {**wrong, "questions": [{"type": "noul", "instructions": "?"}]}
    assert refused(written(tmp_path, right, nameless)) == "question 1 has no name for its answers"


def test_questions_that_cannot_be_told_apart_are_named(tmp_path):
    path = written(tmp_path, {"state": "x", "answers": {"spam": True}})
    with pytest.raises(DataError, match="line 1: question 2 is called 'spam', as another is"):
        read_rows(path, [SPAM, SPAM])
    with pytest.raises(DataError, match="line 1: questions are missing"):
        read_rows(path)
    with pytest.raises(DataError, match="line 1: question 1 cannot be asked: type must be"):
        read_rows(path, questions_of([{"name": "spam"}]))


def test_a_file_of_no_rows_is_an_error(tmp_path):
    with pytest.raises(DataError, match="rows.jsonl: holds no rows"):
        read_rows(written(tmp_path, "", " "), QUESTIONS)


def test_a_conversation_may_stand_in_an_object(tmp_path):
    messages = [{"role": "user", "content": "Hi"}]
    path = written(
        tmp_path, *({"state": state, "answers": {"spam": True}} for state in (messages, {"messages": messages}))
    )
    bare, wrapped = read_rows(path, QUESTIONS)
    assert wrapped.state == bare.state
    assert wrapped.state.messages
