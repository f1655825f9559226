"""Doubt: what several looks at a question say together, in which orders to look again, and when to leave it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from redraft.core.decisions import Answer
from redraft.core.questions import DecideOptions, Question
from redraft.decide.looks import Draw, ReaderName
from redraft.decide.prompts import LabelKind

_OTHER: dict[ReaderName, ReaderName] = {"canvas": "causal", "causal": "canvas"}


@dataclass(kw_only=True)
class Evidence:
    """What was seen of a question.

    Attributes:
        draws: by reader, in the order in which they were looked at.
        stages: what was used, in order.
    """

    draws: dict[ReaderName, list[Draw]] = field(default_factory=dict)
    stages: list[str] = field(default_factory=list)

    def add(self, reader: ReaderName, stage: str, draws: Sequence[Draw]) -> None:
        """Takes draws in; a stage counts once, however many reads it took."""
        self.draws.setdefault(reader, []).extend(draws)
        if stage not in self.stages:
            self.stages.append(stage)

    @property
    def other(self) -> ReaderName:
        """The reader that has not looked."""
        return _OTHER[next(iter(self.draws))]

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The mean over readers of each one's mean over its draws: of probabilities, not of logits."""
        return _mean([_mean([draw.probabilities for draw in draws]) for draws in self.draws.values()])

    @property
    def mass(self) -> float:
        """Of the labels, averaged alike."""
        return _mean([_mean([(draw.mass,) for draw in draws]) for draws in self.draws.values()])[0]

    @property
    def spread(self) -> float:
        """The largest difference between two draws of one reader in the probability of an option."""
        by_option = (zip(*(draw.probabilities for draw in draws), strict=True) for draws in self.draws.values())
        return max(max(shares) - min(shares) for options in by_option for shares in options)

    @property
    def entropy_nats(self) -> float:
        """Of the probabilities."""
        return -math.fsum(p * math.log(p) for p in self.probabilities if p > 0)

    @property
    def disagree(self) -> bool:
        """Whether two readers find different options the likeliest."""
        means = [_mean([draw.probabilities for draw in draws]) for draws in self.draws.values()]
        return len({max(range(len(mean)), key=mean.__getitem__) for mean in means}) > 1

    def is_doubtful(self, gate_nats: float | None) -> bool:
        """Whether it is to be looked at again."""
        return gate_nats is not None and self.entropy_nats > gate_nats

    def answer(self, question: Question, options: DecideOptions) -> Answer:
        """The question's answer, as it was read."""
        raw = self.probabilities
        return Answer(
            question=question,
            probabilities=raw,
            raw=raw,
            label_mass=self.mass,
            spread=self.spread,
            draws=len(self.draws.get("canvas", ())),
            stages=tuple(self.stages),
            doubts=("entropy",) if self.is_doubtful(options.gate_nats) else (),
        )


def orders(count: int, labels: LabelKind, more: int) -> list[tuple[int, ...] | None]:
    """In which orders a question's options are listed for each of some further looks.

    They are turned, so that an option comes under another letter each time, as far from the last as there is room.
    Labels that say what they stand for, and levels by their numbers, keep their order: None.
    """
    if labels not in ("letter", "text"):
        return [None] * more
    looks = more + 1
    turns = [look * max(count, looks) // looks % count for look in range(1, looks)]
    return [tuple((turn + place) % count for place in range(count)) if turn else None for turn in turns]


def reasons_to_abstain(
    answer: Answer, options: DecideOptions, *, disagree: bool, threshold: float | None
) -> tuple[tuple[str, ...], str | None]:
    """What speaks against an answer.

    Args:
        answer: calibrated where it is to be.
        options: with the least label mass and confidence.
        disagree: whether two readers do.
        threshold: the least confidence by a calibration; infinite where no confidence was enough, None without one.

    Returns:
        The answer's doubts; why it is to be left unanswered, in a line, None where it is not.
    """
    doubts, reasons = list(answer.doubts), []
    if answer.label_mass < options.least_mass:
        doubts.append("label mass")
        reasons.append(f"label mass {answer.label_mass:.3g} is below {options.least_mass:g}")
    least = max(options.least_confidence, threshold or 0.0)
    if answer.confidence < least:
        doubts.append("confidence")
        enough = f"is below {least:.3g}" if least <= 1 else "is not enough: by its calibration, none is"
        reasons.append(f"confidence {answer.confidence:.3g} {enough}")
    if disagree:
        doubts.append("disagreement")
        if options.agree:
            reasons.append("the canvas and the causal mode disagree")
    return tuple(doubts), "; ".join(reasons) or None


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(math.fsum(column) / len(rows) for column in zip(*rows, strict=True))
