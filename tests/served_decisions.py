"""An engine that answers questions as it is told, for tests of what stands above it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from redraft.core.decisions import Answer, Decisions, DecisionStats, Refusal
from redraft.core.reads import CausalRead, DrawReading, Reading, Readings
from redraft.decide.state import state_of

READING = Reading(draws=(DrawReading(),), prompt_tokens=7, cached_tokens=3, positions=4, forwards=1, seconds=0.0)


@dataclass(eq=False)
class FakeReads:
    """See `core.engine.Prepared`."""

    reads: list[Any]
    memory_bytes: int = 10
    prompt_tokens: int = 7

    def lost(self, finish_reason, error=None):
        return Readings(readings=(), finish_reason=finish_reason, error=error)


@dataclass
class FakeEngine:
    """Asks for `rounds` rounds of two reads, then answers evenly; `abstains` by the question's number."""

    rounds: int = 2
    abstains: tuple[int, ...] = ()
    fails: str | None = None
    holds: threading.Event = field(default_factory=threading.Event)
    raises: Exception | None = None
    request_bytes: int = 1000
    needs: int = 10
    seen: list[Any] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)
    adapters: dict[str, Any] = field(default_factory=dict)

    def deciding(self, state, questions, options=None):
        state = state_of(state)
        self.seen.append((state, questions, options))
        if self.raises is not None:
            raise self.raises
        for _ in range(self.rounds):
            readings = yield [CausalRead(prompt=(1,)), CausalRead(prompt=(2,))]
            self.lists.append(len(readings))
        answers = [self._answer(number, question) for number, question in enumerate(questions)]
        stats = DecisionStats(reads=2, canvas_reads=1, causal_reads=1, reread=1, prompt_tokens=20, cached_tokens=5)
        return Decisions(answers=tuple(answers), stats=stats)

    def _answer(self, number, question):
        if isinstance(question, Refusal):
            return question
        even = tuple(1 / len(question.options) for _ in question.options)
        answer = Answer(question=question, probabilities=even, raw=even, label_mass=0.5)
        if number not in self.abstains:
            return answer
        return Refusal(question=question, name=question.name, code="abstained", reason="unsure", answer=answer)

    def prepare_reads(self, reads):
        return FakeReads(reads, self.needs)

    def running(self):
        return FakeRunning(self)


class FakeRunning:
    """See `core.engine.Running`."""

    def __init__(self, engine):
        self.engine, self.jobs, self.cancelled, self.moved = engine, deque(), set(), 0

    def add(self, prepared, *, drafts=True):
        self.jobs.append(prepared)

    def cancel(self, prepared):
        self.cancelled.add(prepared)

    def step(self):
        self.moved += 1
        done = []
        for one in list(self.jobs):
            if one in self.cancelled:
                done.append((one, one.lost("cancelled")))
            elif self.engine.fails is not None:
                done.append((one, one.lost("error", self.engine.fails)))
            elif not self.engine.holds.is_set():
                done.append((one, Readings(readings=(READING,) * len(one.reads))))
        for one, _ in done:
            self.jobs.remove(one)
        time.sleep(0.001)
        return done
