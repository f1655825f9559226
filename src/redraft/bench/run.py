"""Runs a bench: starts a process for each subject and lets them take turns, so that a noisy minute hits them alike."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from redraft.bench.subjects import Result, Spec, Work


class SubjectFailed(Exception):
    """A subject that cannot be measured; the reason in one line."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every subject does.

    Attributes:
        vocab_size: of the model; prompts are random ids below it.
        prompt_tokens: length of each prompt, another one in every repetition.
        prompt: this one instead, in every repetition.
        max_new_tokens, steps: see `Work`.
        repetitions: measured generations of each subject, after one that warms up.
    """

    vocab_size: int
    prompt_tokens: int
    max_new_tokens: int
    steps: int | None
    repetitions: int
    prompt: tuple[int, ...] | None = None

    def work(self, repetition: int, *, parts: bool = False) -> Work:
        """The generation of one repetition, the same for every subject."""
        draw = random.Random(repetition)
        ids = self.prompt or tuple(draw.randrange(3, self.vocab_size) for _ in range(self.prompt_tokens))
        return Work(prompt=ids, max_new_tokens=self.max_new_tokens, steps=self.steps, seed=repetition + 1, parts=parts)


@dataclass
class Measured:
    """A subject and its results, warm-up excluded; `failed` says why there are none."""

    spec: Spec
    results: list[Result] = field(default_factory=list)
    parts: dict[str, float] | None = None
    commit_s: float | None = None
    token_s: float | None = None
    modes: dict[str, dict[str, float]] | None = None
    load_s: float | None = None
    failed: str | None = None

    def median(self, name: str) -> float:
        """Of one field of the results."""
        return statistics.median(getattr(result, name) for result in self.results)

    def spread(self, name: str) -> tuple[float, float]:
        """(least, largest) of one field of the results."""
        values = [getattr(result, name) for result in self.results]
        return min(values), max(values)


class Worker:
    """The process of one subject."""

    def __init__(self, spec: Spec) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "redraft.bench.worker", json.dumps(asdict(spec))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self.load_s: float = self._reply()["load_s"]
        except SubjectFailed:
            self.close()
            raise

    def run(self, work: Work) -> Result:
        """One generation.

        Raises:
            SubjectFailed: it, or the process, failed.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(asdict(work)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise SubjectFailed("its process has ended") from None
        return Result(**self._reply())

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SubjectFailed(f"its process ended with code {self.process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise SubjectFailed(reply["error"])
        return reply

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


def measure(
    specs: Sequence[Spec], plan: Plan, on_progress: Callable[[str, int, int], None] = lambda name, done, total: None
) -> list[Measured]:
    """Every subject's results, in the order of the specs; turns alternate.

    Args:
        specs: the subjects, all loaded at the same time.
        plan: what each of them does.
        on_progress: gets what runs now, turns done and turns in all.
    """
    found = [Measured(spec) for spec in specs]
    rounds = plan.repetitions + 2
    total = len(specs) * rounds
    with _workers(found, on_progress, total) as workers:
        for turn in range(rounds):
            warming, with_parts = turn == 0, turn == rounds - 1
            for number, measured in enumerate(found):
                worker = workers[number]
                on_progress(measured.spec.name, turn * len(found) + number, total)
                if worker is None or (with_parts and measured.spec.compiled):
                    continue
                try:
                    result = worker.run(plan.work(turn, parts=with_parts))
                except SubjectFailed as error:
                    measured.failed = str(error)
                    worker.close()
                    workers[number] = None
                    continue
                if with_parts:
                    measured.parts = result.parts
                    measured.commit_s, measured.token_s = result.commit_s, result.token_s
                    measured.modes = result.modes
                elif not warming:
                    measured.results.append(result)
    return found


@contextmanager
def _workers(
    found: list[Measured], on_progress: Callable[[str, int, int], None], total: int
) -> Iterator[list[Worker | None]]:
    workers: list[Worker | None] = []
    try:
        for measured in found:
            on_progress(f"loading {measured.spec.name}", 0, total)
            try:
                worker = Worker(measured.spec)
                measured.load_s = worker.load_s
            except SubjectFailed as error:
                measured.failed, worker = str(error), None
            workers.append(worker)
        yield workers
    finally:
        for worker in workers:
            if worker is not None:
                worker.close()
