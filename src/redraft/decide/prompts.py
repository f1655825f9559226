"""How questions are put to the model: the wording that a calibration is bound to, and that a model is tuned on.

Each question is a block of lines; the state stands before the blocks, or behind them. Alone, a question is answered
with a label and nothing else; with others, with a line for each: its number, a colon and its label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from redraft.core.questions import Option, Question
from redraft.decide.state import State

# Changes with every change of the wording.
FORM = "redraft-1"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
_LINES = "Write a line for each question: its number, a colon and its answer."

LabelKind = Literal["yes/no", "letter", "digit", "text"]
_ANSWER = {
    "yes/no": "Answer yes or no.",
    "letter": "Answer with one letter.",
    "digit": "Answer with one number.",
    "text": "Answer with one of these, word for word.",
}


@dataclass(frozen=True, kw_only=True)
class Put:
    """A question as it is put.

    Attributes:
        question: what is asked.
        labels: what kind of label its options have.
        order: the options' numbers, in the order in which they are listed.
    """

    question: Question
    labels: LabelKind
    order: tuple[int, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The label of each option, in the question's own order."""
        count = len(self.order)
        if self.labels == "yes/no":
            return ("yes", "no")
        if self.labels == "text":
            return tuple(text_of(self.question, option) for option in self.question.options)
        if self.labels == "digit":
            return tuple(DIGITS[:count])
        place = {option: listed for listed, option in enumerate(self.order)}
        return tuple(LETTERS[place[option]] for option in range(count))


def label_kinds(question: Question) -> tuple[LabelKind, ...]:
    """Kinds of labels that would do for a question, the best first."""
    if question.form == "text":
        return ("text",)
    by_text: tuple[LabelKind, ...] = ("text",) if question.form == "auto" else ()
    letters: tuple[LabelKind, ...] = ("letter",) if len(question.options) <= len(LETTERS) else ()
    if question.kind == "predicate":
        return ("yes/no", *letters)
    return ("digit", *letters) if question.kind == "score" else (*letters, *by_text)


def block(put: Put, number: int | None) -> str:
    """The lines of one question; `number` where it is one of several."""
    question, texts = put.question, put.texts
    lines = [f"Question: {question.instructions}" if number is None else f"Question {number}: {question.instructions}"]
    for option in put.order:
        lines += _line(question, question.options[option], texts[option], put.labels)
    return "\n".join([*lines, _ANSWER[put.labels]])


def messages(state: State, puts: Sequence[Put], *, joint: bool, behind: bool) -> list[Mapping[str, Any]]:
    """The conversation that ends with the questions being asked.

    Args:
        state: what they are about; a conversation always stands before them.
        puts: the questions; one of them where it is not `joint`.
        joint: whether each is answered on a line of its own.
        behind: whether the state stands behind the questions.
    """
    blocks = [block(put, number if joint else None) for number, put in enumerate(puts, start=1)]
    asked = "\n\n".join([*blocks, _LINES] if joint else blocks)
    if state.messages:
        return [*state.messages, {"role": "user", "content": asked}]
    if behind:
        return [{"role": "system", "content": asked}, *state.conversation]
    return [{"role": "user", "content": asking(state, asked)}]


def asking(state: State, asked: str) -> str | list[Mapping[str, Any]]:
    """What a user says who asks this about a state that is no conversation; pictures come before, in one message."""
    if not state.parts:
        return f"{before(state)}{asked}"
    *parts, last = state.parts
    if last["type"] != "text":
        return [*state.parts, {"type": "text", "text": asked}]
    return [*parts, {"type": "text", "text": f"{before(State(text=last['text']))}{asked}"}]


def before(state: State) -> str:
    """What of a text stands before every question about it."""
    return f"{state.text}\n\n"


def text_of(question: Question, option: Option) -> str:
    """How a question calls one of its options: a predicate's are yes and no."""
    return {True: "yes", False: "no"}[bool(option.value)] if question.kind == "predicate" else option.text


def _line(question: Question, option: Option, label: str, labels: LabelKind) -> list[str]:
    if labels == "yes/no":
        return [] if option.description is None else [f"{label}: {option.description}"]
    shown = text_of(question, option)
    meant = "" if option.description is None else f" ({option.description})"
    return [f"- {shown}{meant}" if labels == "text" else f"{label}: {shown}{meant}"]
