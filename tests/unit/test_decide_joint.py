"""Several questions on one canvas, and what parts them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deciding import Driver, answers, decided, known, prompt, surely, text, tokenizer
from redraft.core.decisions import Answer, Refusal
from redraft.core.errors import ContextLengthError, PromptError
from redraft.core.questions import choice, predicate, score
from redraft.core.reads import CanvasRead, Read

CAT = predicate("Is it a cat?", name="cat")
PET = choice("Which pet?", ["cat", "dog", "cow"], name="pet")
MOOD = score("How glad?", ["not", "some", "very"])
SURE = (0.99, 0.01)
TORN = (0.6, 0.4)


def test_questions_on_one_canvas_token_for_token():
    driver = Driver(surely)
    found = decided(driver, [CAT, PET, MOOD], joint=True)
    (read,) = driver.reads
    assert isinstance(read, CanvasRead)
    assert read.prompt == prompt(
        "The cat sat.\n\nQuestion 1: Is it a cat?\nA: yes\nB: no\nAnswer with one letter.\n\n"
        "Question 2: Which pet?\nA: cat\nB: dog\nC: cow\nAnswer with one letter.\n\n"
        "Question 3: How glad?\n0: not\n1: some\n2: very\nAnswer with one number.\n\n"
        "Write a line for each question: its number, a colon and its answer."
    )
    lines = tokenizer().encode("1: A\n2: A\n3: 0")
    for slot in (2, 6, 10):
        lines[slot] = -1
    assert read.canvas == (*lines, 5, 0, 0, 0, 0)
    assert [answer.value for answer in answers(found)] == [True, "cat", "not"]
    assert found["pet"] is found[1]
    assert (found.stats.reads, found.stats.canvas_reads, found.stats.reread) == (1, 1, 0)


def test_four_hundred_questions_in_even_chunks():
    questions = [predicate(f"Is it {number}?", name=str(number)) for number in range(400)]

    def shares(read: Read, draw: int, slot: int) -> tuple[float, ...]:
        number = int(re.findall(r"Is it (\d+)", text(read.prompt))[slot])
        return (0.999, 0.001) if number % 3 else (0.001, 0.999)

    driver = Driver(shares)
    found = decided(driver, questions, joint=True)
    # Twelve lines of four tokens are a canvas of 48; from the tenth on, mini writes two digits as one token.
    sizes = [len(read.slots) for read in driver.reads if isinstance(read, CanvasRead)]
    assert len(sizes) == 34
    assert set(sizes) == {11, 12}
    for read in driver.reads:
        numbers = re.findall(r"Question (\d+): ", text(read.prompt))
        assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
        assert isinstance(read, CanvasRead)
        assert len(read.canvas) == 48
    assert [answer.value for answer in answers(found)] == [bool(number % 3) for number in range(400)]


def test_the_context_bounds_a_canvas_too():
    questions = [predicate(f"Is it {number}?") for number in range(12)]
    driver = Driver(surely)
    whole = decided(driver, questions, joint=True)
    length = len(driver.reads[0].prompt)
    driver = Driver(surely)
    parted = decided(driver, questions, joint=True, of=known(max_context=length + 47))
    assert [len(read.slots) for read in driver.reads if isinstance(read, CanvasRead)] == [6, 6]
    assert [answer.value for answer in answers(parted)] == [answer.value for answer in answers(whole)]


def test_a_question_too_long_is_refused_and_a_state_too_long_is_an_error():
    small = known(max_context=96)
    long = predicate("Is it " + "really " * 60 + "a cat?", name="long")
    found = decided(Driver(surely), [CAT, long, PET], of=small)
    assert [type(answer) for answer in found.answers] == [Answer, Refusal, Answer]
    refused = found["long"]
    assert isinstance(refused, Refusal)
    assert refused.code == "invalid_question"
    assert re.fullmatch(
        r"instructions are too long: prompt and answer have \d+ tokens, the context holds 96", refused.reason
    )
    questions = [
        score("How?", ["low", "high " * 60]),
        choice("Which?", {"a": None, "b": "so " * 60}),
        predicate("Is it?", true="so " * 60),
    ]
    reasons = [answer.reason for answer in decided(Driver(surely), questions, of=small) if isinstance(answer, Refusal)]
    assert [reason.split(":")[0] for reason in reasons] == [
        "levels are too long", "choices are too long", "options are too long"
    ]  # fmt: skip
    calls = choice("", ["play", "stop"], form="reply")
    (whole,) = decided(Driver(surely), calls, "word " * 96, of=small).answers
    assert isinstance(whole, Refusal)
    assert whole.reason.startswith("state is too long: prompt and answer")
    with pytest.raises(ContextLengthError, match="the context holds 96"):
        decided(Driver(surely), CAT, "word " * 96, of=small)
    with pytest.raises(ContextLengthError, match="the context holds 96"):
        decided(Driver(surely), CAT, "word " * 96, of=small, state="behind")


def test_words_that_a_model_cannot_write_are_refused_by_themselves():
    def tokenize(messages: Sequence[Mapping[str, Any]]) -> list[int]:
        if "unheard" in messages[-1]["content"]:
            raise PromptError("this tokenizer cannot write it")
        return known().tokenize(messages)

    unheard = predicate("Is it unheard of?")
    driver = Driver(surely)
    found = decided(driver, [CAT, unheard, PET], joint=True, of=known(tokenize=tokenize))
    # The others share their canvas without it.
    assert [len(read.slots) for read in driver.reads if isinstance(read, CanvasRead)] == [2]
    assert [type(answer) for answer in found.answers] == [Answer, Refusal, Answer]
    refused = found[1]
    assert isinstance(refused, Refusal)
    assert refused.reason == "instructions cannot be put to this model: this tokenizer cannot write it"
    with pytest.raises(PromptError, match="cannot write it"):
        decided(Driver(surely), CAT, "unheard", of=known(tokenize=tokenize))


def test_one_question_too_long_does_not_part_the_others():
    prompts: list[Any] = []

    def tokenize(messages: Sequence[Mapping[str, Any]]) -> list[int]:
        prompts.append(messages)
        return known().tokenize(messages)

    questions = [predicate(f"Is it {number}?") for number in range(100)]
    long = predicate("Is it " + "really " * 500 + "a cat?")
    driver = Driver(surely)
    found = decided(driver, [*questions, long], joint=True, of=known(max_context=460, tokenize=tokenize))
    assert [type(answer) for answer in found.answers] == [Answer] * 100 + [Refusal]
    sizes = {len(read.slots) for read in driver.reads if isinstance(read, CanvasRead)}
    assert sizes == {11, 12}
    # Whoever asks so pays for it once: no division is tried prompt by prompt.
    assert len(prompts) < 50


def test_a_long_question_goes_by_itself():
    questions = [predicate(f"Is it {number}?") for number in range(6)]
    long = predicate("Is it " + "really " * 130 + "a cat?")
    driver = Driver(surely)
    found = decided(
        driver, [*questions[:3], long, *questions[3:]], joint=True, of=known(max_context=330), reader="canvas"
    )
    assert [type(answer) for answer in found.answers] == [Answer] * 7
    assert sorted(len(read.slots) for read in driver.reads if isinstance(read, CanvasRead)) == [1, 6]
