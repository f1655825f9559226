"""What a decision is: answers with their probabilities, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from redraft.core.calibration import Calibration as Calibration
from redraft.core.questions import Question


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question's answer.

    Attributes:
        question: what was asked.
        probabilities: of each option; they sum to 1. Calibrated where a calibration was given.
        raw: the same as they were read.
        label_mass: what the options' labels (or, by their own text, the tokens that any of them begins with) hold of
            the whole vocabulary at their place; where it is low, the model would have answered something else.
        spread: the largest difference between two draws in the probability of an option; 0 of a single draw.
        draws: canvases that were looked at.
        stages: what was used to find it, in order: "canvas", "causal", "draws" (more of them), "second reader".
        doubts: reasons to leave it unanswered: "entropy", "label mass", "confidence", "disagreement".
        calibrated: whether `probabilities` are.
    """

    question: Question
    probabilities: tuple[float, ...]
    raw: tuple[float, ...]
    label_mass: float
    spread: float = 0.0
    draws: int = 0
    stages: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    calibrated: bool = False

    @property
    def index(self) -> int:
        """The likeliest option's number; of equally likely ones, the first."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def value(self) -> str | bool:
        """What the likeliest option is called."""
        return self.question.options[self.index].value

    @property
    def confidence(self) -> float:
        """The likeliest option's probability: what share of such answers should be right."""
        return self.probabilities[self.index]

    @property
    def score(self) -> float:
        """Of a score, the expected level, from 0; of a predicate, the probability of yes."""
        if self.question.kind == "predicate":
            return self.probabilities[0]
        return sum(level * p for level, p in enumerate(self.probabilities))

    @property
    def entropy_nats(self) -> float:
        """Of the options' probabilities."""
        return -sum(p * math.log(p) for p in self.probabilities if p > 0)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        question = self.question
        shares = [
            {"value": option.value, "probability": p, "raw": raw}
            for option, p, raw in zip(question.options, self.probabilities, self.raw, strict=True)
        ]
        found: dict[str, Any] = {"type": question.kind, "name": question.name, "answer": self.value}
        if question.kind == "score":
            found["score"] = self.score
        return found | {
            "confidence": self.confidence, "probabilities": shares, "entropy_nats": self.entropy_nats,
            "label_mass": self.label_mass, "spread": self.spread, "draws": self.draws, "stages": list(self.stages),
            "doubts": list(self.doubts), "calibrated": self.calibrated,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A question that has no answer, beside others that have one.

    Attributes:
        question: what was asked; None where it was no question at all.
        name: the caller's own.
        code: for programs: "invalid_question", "abstained".
        reason: for people, in one line.
        answer: what would have been the answer, where the model abstained.
    """

    question: Question | None
    name: str | None
    code: str
    reason: str
    answer: Answer | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        found: dict[str, Any] = {"type": "refusal", "name": self.name, "code": self.code, "reason": self.reason}
        return found if self.answer is None else {**found, "would_be": self.answer.to_dict()}


@dataclass(frozen=True, kw_only=True)
class DecisionStats:
    """What decisions cost.

    Attributes:
        reads: prompts that were read, each from one canvas of some draws, or by the causal mode.
        canvas_reads, causal_reads: those of them.
        reread: questions that were looked at again because they were above the gate.
        abstained: questions that were left unanswered.
        prompt_tokens: of all reads, cached ones included.
        cached_tokens: those of them that were encoded before.
        positions: that were run through the model.
        forwards: of the model.
        total_s: from the start to the end.
    """

    reads: int = 0
    canvas_reads: int = 0
    causal_reads: int = 0
    reread: int = 0
    abstained: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    positions: int = 0
    forwards: int = 0
    total_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Answers to the questions about one state.

    Attributes:
        answers: in the order of the questions.
        stats: what they cost.
        found_with: what their probabilities depend on besides the questions: what a calibration of them is bound to.
    """

    answers: tuple[Answer | Refusal, ...]
    stats: DecisionStats
    found_with: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str | int) -> Answer | Refusal:
        """By the question's number, or by its name."""
        if isinstance(name, int):
            return self.answers[name]
        for answer in self.answers:
            if name == (answer.name if isinstance(answer, Refusal) else answer.question.name):
                return answer
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"answers": [answer.to_dict() for answer in self.answers], "stats": asdict(self.stats)}
