"""Labels: a token that stands for each option, after the exact place where it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redraft.core.errors import QuestionError
from redraft.core.questions import Question
from redraft.core.reads import NOISE
from redraft.decide.known import Known
from redraft.decide.prompts import LabelKind, Put, label_kinds

_WHERE = {"predicate": "form", "choice": "choices", "score": "levels"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A question's line on a joint canvas.

    Attributes:
        ids: of the line, `NOISE` where the label stands.
        place: of the label in it.
        tokens: of each option's label, in the question's own order.
    """

    ids: tuple[int, ...]
    place: int
    tokens: tuple[int, ...]


class Labels:
    """What a tokenizer makes of labels; what it was asked once, it is not asked again."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._ids: dict[str, tuple[int, ...]] = {}

    def alone(self, question: Question) -> LabelKind:
        """The best kind of labels of which each is one token, the first of a reply; "text" where none is wanted.

        Raises:
            QuestionError: no kind that the question allows.
        """
        if question.form == "reply":
            return "text"
        kinds = label_kinds(question)
        for kind in kinds:
            if kind == "text" or self._first(listed(question, kind)):
                return kind
        where = _WHERE[question.kind]
        if not kinds:
            raise QuestionError(
                where, f"are {len(question.options)}, more than there are letters: ask with form 'text'"
            )
        tried = " nor ".join(f"{texts[0]!r} to {texts[-1]!r}" for texts in (listed(question, k).texts for k in kinds))
        raise QuestionError(where, f"have no labels: neither {tried} are one token each here; ask with form 'text'")

    def tokens(self, put: Put) -> tuple[int, ...]:
        """The token of each option's label as the first of a reply, in the question's own order."""
        found = self._first(put)
        assert found is not None
        return found

    def together(self, question: Question) -> LabelKind | None:
        """The best kind of labels that stand for the options on a line among others; None where there is none."""
        if question.form == "reply":
            return None
        for kind in label_kinds(question):
            put = listed(question, kind)
            if kind != "text" and self.line(put, 1, last=False) and self.line(put, 1, last=True):
                return kind
        return None

    def line(self, put: Put, number: int, *, last: bool) -> Line | None:
        """A question's line, None where its labels are no single tokens there."""
        end = "" if last else "\n"
        lines = [self._of(f"{number}: {text}{end}") for text in put.texts]
        first = lines[0]
        if any(len(line) != len(first) for line in lines):
            return None
        places = {place for line in lines for place, token in enumerate(line) if token != first[place]}
        if len(places) != 1:
            return None
        place = places.pop()
        tokens = tuple(line[place] for line in lines)
        if len(set(tokens)) < len(tokens):
            return None
        return Line(ids=(*first[:place], NOISE, *first[place + 1 :]), place=place, tokens=tokens)

    def _first(self, put: Put) -> tuple[int, ...] | None:
        ids = [self._of(text) for text in put.texts]
        tokens = tuple(each[0] for each in ids if len(each) == 1)
        return tokens if len(set(tokens)) == len(ids) else None

    def _of(self, text: str) -> tuple[int, ...]:
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = tuple(self._known.encode(text))
        return found


def listed(question: Question, labels: LabelKind, order: Sequence[int] | None = None) -> Put:
    """A question with its options in this order, or in its own."""
    return Put(question=question, labels=labels, order=tuple(order or range(len(question.options))))
