"""Decisions without a model: mini's tokenizer and template, and readings that a test makes up."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import redraft
from redraft.core.decisions import Answer, Decisions
from redraft.core.questions import DecideOptions, Question
from redraft.core.reads import CanvasRead, CausalRead, DrawReading, Read, Reading, SlotReading
from redraft.decide.known import Known
from redraft.decide.rounds import decide
from redraft.text.chat import ChatTemplate
from redraft.text.constraint import ConstraintFactory
from redraft.text.tokenizer import Tokenizer

MINI = Path(redraft.__file__).parent / "models" / "mini"
# How likely the first, the second, ... option of a read is, for each of its draws; by slot.
Shares = Callable[[Read, int, int], Sequence[float]]


@cache
def tokenizer() -> Tokenizer:
    found = Tokenizer.from_directory(MINI)
    assert found is not None
    return found


@cache
def template() -> ChatTemplate:
    found = ChatTemplate.from_directory(MINI)
    assert found is not None
    return found


@cache
def constraints() -> ConstraintFactory:
    return ConstraintFactory(tokenizer(), (5, 1), 0, 0, 4096)


def known(**changes: Any) -> Known:
    """mini, as far as questions are concerned; its canvas has 48 positions."""

    def tokenize(messages: Sequence[Mapping[str, Any]]) -> list[int]:
        return template().prompt(tokenizer(), messages).encode(tokenizer())

    whole = Known(
        tokenize=tokenize,
        encode=tokenizer().encode,
        constraints=constraints,
        end_id=5,
        end_ids=(5, 1),
        pad_id=0,
        canvas_length=48,
        max_context=2048,
        vocab_size=4096,
        identity={"model": "mini", "parameters": 4_460_000, "dtype": "float32", "quantize": None},
    )
    return replace(whole, **changes)


class Driver:
    """Answers reads with what a test makes up, and remembers them.

    Attributes:
        rounds: the reads, list by list.
    """

    def __init__(self, shares: Shares, mass: float = 1.0) -> None:
        """`shares(read, draw, slot)` are the options' probabilities there; `mass`, what they are of the vocabulary."""
        self.shares, self.mass = shares, mass
        self.rounds: list[list[Read]] = []

    @property
    def reads(self) -> list[Read]:
        return [read for reads in self.rounds for read in reads]

    def __call__(self, conversation: Generator[list[Read], list[Reading], Decisions]) -> Decisions:
        try:
            reads = next(conversation)
            while True:
                assert reads, "a list of no reads"
                self.rounds.append(reads)
                reads = conversation.send([self.reading(read) for read in reads])
        except StopIteration as stop:
            return stop.value

    def reading(self, read: Read) -> Reading:
        draws = read.draws if isinstance(read, CanvasRead) else (0,)
        length = len(read.prompt)
        return Reading(
            draws=tuple(self.draw(read, draw) for draw in draws),
            prompt_tokens=length,
            cached_tokens=3,
            positions=length - 3 + (len(read.canvas) * len(draws) if isinstance(read, CanvasRead) else 0),
            forwards=2 if isinstance(read, CanvasRead) else 1,
            seconds=0.5,
        )

    def draw(self, read: Read, draw: int) -> DrawReading:
        if isinstance(read, CanvasRead) and not read.slots:
            return DrawReading(log_weights=self.log_probs(read, draw, 0), opening_nats=math.log(self.mass))
        if isinstance(read, CausalRead):
            weights = self.log_probs(read, draw, 0)
            if read.continuations:
                even = math.log(self.mass / len(read.token_ids))
                return DrawReading(slots=(self.slot((even,) * len(read.token_ids)),), log_weights=weights)
            return DrawReading(slots=(self.slot(weights),))
        return DrawReading(slots=tuple(self.slot(self.log_probs(read, draw, n)) for n in range(len(read.slots))))

    def log_probs(self, read: Read, draw: int, slot: int) -> tuple[float, ...]:
        shares = self.shares(read, draw, slot)
        return tuple(math.log(self.mass * share) if share else -math.inf for share in shares)

    @staticmethod
    def slot(log_probs: tuple[float, ...]) -> SlotReading:
        return SlotReading(log_probs=log_probs, entropy_nats=0.0, argmax=0)


def decided(
    driver: Driver,
    questions: Question | Sequence[Any],
    about: Any = "The cat sat.",
    *,
    of: Known | None = None,
    **options: Any,
) -> Decisions:
    """Questions about a state, asked of a driver."""
    listed = [questions] if isinstance(questions, Question) else list(questions)
    return driver(decide(of or known(), about, listed, DecideOptions(**options)))


def text(ids: Sequence[int]) -> str:
    """Ids as they read."""
    return tokenizer().decode(ids)


def surely(read: Read, draw: int, slot: int) -> tuple[float, ...]:
    count = options_of(read, slot)
    return (0.995, *[0.005 / (count - 1)] * (count - 1))


def torn(read: Read, draw: int, slot: int) -> tuple[float, ...]:
    count = options_of(read, slot)
    return (1 / count,) * count


def options_of(read: Read, slot: int) -> int:
    if isinstance(read, CausalRead):
        return len(read.continuations or read.token_ids)
    return len(read.slots[slot].token_ids)


def by_listing(of_texts: Mapping[str, float], of_letters: str = ""):
    """Options weigh what their text says, wherever it is listed; or, without, what their letter says."""

    def shares(read: Read, draw: int, slot: int) -> tuple[float, ...]:
        ids = read.token_ids if isinstance(read, CausalRead) else read.slots[slot].token_ids
        blocks = re.split(r"Question(?: \d+)?: ", text(read.prompt))[1:]
        listed = dict(re.findall(r"^([A-Z]): (\w+)", blocks[slot], re.M))
        letters = [text([token]).strip() for token in ids]
        found = [of_texts[listed[x]] if of_texts else 1.0 + 9 * (x == of_letters) for x in letters]
        return tuple(weight / sum(found) for weight in found)

    return shares


def prompt(content: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(f"<bos><|turn>user\n{content}<turn|>\n<|turn>model\n"))


def answers(decisions: Decisions) -> list[Answer]:
    assert all(isinstance(answer, Answer) for answer in decisions.answers), decisions.answers
    return list(decisions.answers)
