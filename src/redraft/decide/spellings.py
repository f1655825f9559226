"""Options by their own text: as a canvas weighs them, and token by token as the causal mode does."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from redraft.core.automaton import DEAD
from redraft.core.checks import shown
from redraft.core.errors import QuestionError
from redraft.core.questions import Question
from redraft.core.reads import Texts
from redraft.decide.known import Known
from redraft.decide.prompts import text_of
from redraft.decide.texts import texts_of

Continuations = tuple[tuple[int, ...], ...]


class Spellings:
    """What a model's tokens make of options' texts."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._continuations: dict[tuple[tuple[str, ...], bool], Continuations] = {}

    def continuations(self, question: Question) -> Continuations:
        """Each option as tokens, with the end of the turn unless more may follow.

        Raises:
            QuestionError: two are one text, or what follows one may be another, or a marker stands in one.
        """
        key = written(question)
        found = self._continuations.get(key)
        if found is None:
            found = self._continuations[key] = self._spelled(question.part, *key)
        return found

    def texts(self, question: Question) -> Texts:
        """What a canvas is read with.

        Raises:
            QuestionError: as `continuations`.
        """
        self.continuations(question)
        options, open_end = written(question)
        return texts_of(self._known, options, open_end=open_end, part=question.part)

    def endings(self, question: Question) -> tuple[tuple[int, ...], tuple[tuple[tuple[int, ...], ...], ...]] | None:
        """(tokens that any option may begin with; of each option, for each place of its continuation, the tokens with
        which it is whole there, though they go on beyond it), where more may follow an option; else None.

        Source: "token healing" of constrained decoding, summed instead of chosen.
        """
        if question.form != "reply":
            return None
        # The causal mode has no canvas that an option could be longer than.
        options, open_end = written(question)
        texts = texts_of(replace(self._known, canvas_length=0), options, open_end=open_end)
        automaton = texts.automaton
        found = []
        for whole, continuation in zip(texts.whole, self.continuations(question), strict=True):
            state, places = automaton.start, []
            for token in continuation:
                ends = np.zeros(automaton.num_classes + 1, np.bool_)
                if state != DEAD:
                    ends[:-1] = np.isin(automaton.following(state), whole)
                    state = automaton.advance(state, [token])
                # A token that no state takes has class -1, the last entry.
                places.append(tuple(np.flatnonzero(ends[automaton.class_of]).tolist()))
            found.append(tuple(places))
        begins = np.append(automaton.following(automaton.start) != DEAD, False)
        return tuple(np.flatnonzero(begins[automaton.class_of]).tolist()), tuple(found)

    def _spelled(self, part: str, options: tuple[str, ...], open_end: bool) -> Continuations:
        for one, other in pairwise(sorted(options)):
            if one == other:
                raise QuestionError(part, f"hold two that are written {shown(one)}: no text tells them apart")
            if open_end and other.startswith(one):
                reason = f"hold {shown(one)}, which {shown(other)} begins with: a reply that does may be either"
                raise QuestionError(part, reason)
        encode = self._known.encode if open_end else self._known.encode_text or self._known.encode
        end = () if open_end else (self._known.end_id,)
        found = []
        for option in options:
            ids = encode(option)
            if not ids or set(ids) & set(self._known.end_ids):
                raise QuestionError(part, f"hold {shown(option)}, which is no text that this model can write")
            found.append((*ids, *end))
        return tuple(found)


def written(question: Question) -> tuple[tuple[str, ...], bool]:
    """How the options are written, and whether more may follow them."""
    if question.form == "reply":
        return tuple(option.text if option.reply is None else option.reply for option in question.options), True
    return tuple(text_of(question, option) for option in question.options), False
