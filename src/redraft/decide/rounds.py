"""Rounds: a first look at every question, further ones at what is doubtful, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from redraft.core.decisions import Answer, Decisions, DecisionStats, Refusal
from redraft.core.errors import QuestionError
from redraft.core.questions import MOST_QUESTIONS, DecideOptions, Question
from redraft.core.reads import CanvasRead, Read, ReadCosts, Reading
from redraft.decide.ask import Ask
from redraft.decide.calibration import bound_to, calibrated, check, threshold_of
from redraft.decide.doubt import Evidence, orders, reasons_to_abstain
from redraft.decide.known import Known
from redraft.decide.labels import listed
from redraft.decide.looks import Look, ReaderName
from redraft.decide.state import state_of

# Tokens of the prompts that are made before any of them is read, and what options by their own text count as.
_AT_ONCE = 2**18
_AN_AUTOMATON = 2**12

Order = tuple[int, ...] | None
Conversation = Generator[list[Read], list[Reading], None]


def decide(
    known: Known, state: Any, questions: Sequence[Question | Refusal], options: DecideOptions
) -> Generator[list[Read], list[Reading], Decisions]:
    """Finds out the answers to questions about a state.

    Args:
        known: the model.
        state: text, a conversation or JSON.
        questions: typed questions; a refusal stays what it is, in its place.
        options: how.

    Returns:
        A conversation: it yields lists of reads, is sent their readings in the same order, and returns the decisions.
        A state beyond the context raises a `ContextLengthError` there, a reading that is no number a `GenerationError`.

    Raises:
        InputError: a state, an option or a number of questions that cannot work.
    """
    if not 1 <= len(questions) <= MOST_QUESTIONS:
        raise QuestionError("questions", f"must be 1 to {MOST_QUESTIONS}, got {len(questions)}")
    if options.calibration is not None:
        check(options.calibration, known, options)
    return _Rounds(known, state, questions, options).run()


class _Rounds:
    """The questions about one state, and what is known of each so far."""

    def __init__(
        self, known: Known, state: Any, questions: Sequence[Question | Refusal], options: DecideOptions
    ) -> None:
        self.options = options
        self.ask = Ask(known, state_of(state), options)
        self.given = questions
        self.questions = {n: each for n, each in enumerate(questions) if isinstance(each, Question)}
        self.refused = {n: each for n, each in enumerate(questions) if isinstance(each, Refusal)}
        self.found = {number: Evidence() for number in self.questions}
        self.costs = ReadCosts()

    def run(self) -> Generator[list[Read], list[Reading], Decisions]:
        """All rounds."""
        started = time.perf_counter()
        yield from self.first()
        yield from self.draws()
        yield from self.second_reader()
        return self.decisions(started)

    def first(self) -> Conversation:
        """The first look at each."""
        if self.questions:
            self.ask.check(self.questions.values())
        draws = range(self.options.draws)
        looks = (self._looks(group, {}, draws) for group in self._groups(self.questions))
        yield from self._read(chain.from_iterable(looks), None)

    def draws(self) -> Conversation:
        """Further looks at what is above the gate, of other noise and in other orders."""
        doubtful = self._doubtful() if self.options.more_draws else []
        canvas = [number for number in doubtful if self.found[number].other == "causal"]
        causal = [number for number in doubtful if self.found[number].other == "canvas"]
        yield from self._read(chain(self._of_other_noise(canvas), self._in_other_orders(causal)), "draws")

    def second_reader(self) -> Conversation:
        """A look by the other reader at what is still above the gate."""
        if not (self.options.second_reader and self.ask.known.canvas_length):
            return
        draws = range(self.options.draws)
        looks = (self._alone(number, self.found[number].other, draws, None) for number in self._doubtful())
        yield from self._read(chain.from_iterable(looks), "second reader")

    def decisions(self, started: float) -> Decisions:
        """What has come of it."""
        answers = tuple(self.refused.get(n) or self._answer(n) for n in range(len(self.given)))
        costs, by_reader = self.costs, self.costs.by_reader
        stats = DecisionStats(
            reads=costs.reads,
            canvas_reads=by_reader.get("canvas", 0),
            causal_reads=by_reader.get("causal", 0),
            reread=sum(len(seen.stages) > 1 for seen in self.found.values()),
            abstained=sum(isinstance(each, Refusal) and each.code == "abstained" for each in answers),
            prompt_tokens=costs.prompt_tokens,
            cached_tokens=costs.cached_tokens,
            positions=costs.positions,
            forwards=costs.forwards,
            total_s=time.perf_counter() - started,
        )
        found_with = bound_to(self.ask.known, self.options)
        return Decisions(answers=answers, stats=stats, found_with=found_with)

    def _answer(self, number: int) -> Answer | Refusal:
        question, evidence, options = self.questions[number], self.found[number], self.options
        answer, threshold = evidence.answer(question, options), None
        if options.calibration is not None:
            answer = calibrated(answer, options.calibration)
            threshold = threshold_of(options.calibration, question)
        doubts, reason = reasons_to_abstain(answer, options, disagree=evidence.disagree, threshold=threshold)
        answer = replace(answer, doubts=doubts)
        if reason is None:
            return answer
        return Refusal(question=question, name=question.name, code="abstained", reason=reason, answer=answer)

    def _doubtful(self) -> list[int]:
        return [n for n, seen in self.found.items() if seen.draws and seen.is_doubtful(self.options.gate_nats)]

    def _groups(self, numbers: Iterable[int]) -> list[list[int]]:
        """The questions that may share a canvas, then each of the others."""
        numbers = list(numbers)
        together = [n for n in numbers if self.options.joint and self.ask.labels.together(self.questions[n])]
        if len(together) < 2:
            return [[number] for number in numbers]
        apart = set(numbers).difference(together)
        return [together, *[[number] for number in numbers if number in apart]]

    def _of_other_noise(self, numbers: Sequence[int]) -> Iterator[Look]:
        """Further draws of canvases: those of one prompt as draws of one read."""
        for group in self._groups(numbers):
            by_order: dict[tuple[Order, ...], list[int]] = {}
            turned = zip(*(self._orders(number, joint=len(group) > 1) for number in group), strict=True)
            for draw, order in enumerate(turned, start=self.options.draws):
                by_order.setdefault(order, []).append(draw)
            for order, draws in by_order.items():
                yield from self._looks(group, dict(zip(group, order, strict=True)), draws)

    def _in_other_orders(self, numbers: Sequence[int]) -> Iterator[Look]:
        """The causal mode has no noise: in the same order it says the same."""
        for number in numbers:
            for order in dict.fromkeys(self._orders(number, joint=False)):
                if order is not None:
                    yield from self._alone(number, "causal", (), order)

    def _orders(self, number: int, *, joint: bool) -> list[Order]:
        question = self.questions[number]
        if question.form == "reply":
            return [None] * self.options.more_draws
        kind = self.ask.labels.together(question) if joint else self.ask.labels.alone(question)
        return orders(len(question.options), kind or "text", self.options.more_draws)

    def _looks(self, group: Sequence[int], order: Mapping[int, Order], draws: Sequence[int]) -> Iterator[Look]:
        """Looks at a group of questions, on as few canvases as hold them; a single one by itself."""
        alone: Sequence[int] = group
        if len(group) > 1:
            together = self.ask.labels.together
            puts = [
                (n, listed(self.questions[n], kind, order.get(n)))
                for n in group
                if (kind := together(self.questions[n]))
            ]
            looks, alone = self.ask.jointly(puts, draws)
            yield from looks
        for number in alone:
            reader = next(iter(self.found[number].draws), None)
            yield from self._alone(number, reader, draws, order.get(number))

    def _alone(self, number: int, reader: ReaderName | None, draws: Sequence[int], order: Order) -> Iterator[Look]:
        """A look at one question, by the reader that is due where none is named; none where there is no room for it."""
        question = self.questions[number]
        try:
            yield self.ask.alone(number, question, reader or self.ask.reader_of(question), draws, order)
        except QuestionError as error:
            # What was seen already stands without a further look.
            if not self.found[number].draws:
                self.refused[number] = refusal(question, error)

    def _read(self, looks: Iterable[Look], stage: str | None) -> Conversation:
        """Has looks read, as many at once as a bounded memory holds."""
        batch: list[Look] = []
        tokens = 0
        for look in looks:
            batch.append(look)
            by_text = isinstance(look.read, CanvasRead) and look.read.texts is not None
            tokens += len(look.read.prompt) + _AN_AUTOMATON * by_text
            if tokens >= _AT_ONCE:
                yield from self._send(batch, stage)
                batch, tokens = [], 0
        if batch:
            yield from self._send(batch, stage)

    def _send(self, looks: Sequence[Look], stage: str | None) -> Conversation:
        readings = yield [look.read for look in looks]
        for look, reading in zip(looks, readings, strict=True):
            self.costs.add(look.read, reading)
            for number, draws in look.found(reading):
                self.found[number].add(look.reader, stage or look.reader, draws)


def refusal(question: Question, error: QuestionError) -> Refusal:
    """Of a question that cannot be asked."""
    return Refusal(question=question, name=question.name, code="invalid_question", reason=str(error))
