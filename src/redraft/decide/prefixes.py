"""Prompts as token ids, and what of each is kept: the part that other questions, or other states, begin with, too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

import numpy as np

from redraft.core.errors import ContextLengthError, PromptError
from redraft.core.options import EXACT_BITS
from redraft.decide import prompts
from redraft.decide.known import Known
from redraft.decide.prompts import Put
from redraft.decide.state import State

# How questions begin, alone and among others, and how states may: what two such prompts share, all of them share.
_QUESTIONS = ("Question: ?", "Question 1: ?")
_STATES = ("a", "1")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt.

    Attributes:
        ids: its tokens.
        kept: lengths behind which its encoding is worth keeping.
        images: the pictures in it.
    """

    ids: tuple[int, ...]
    kept: tuple[int, ...] = ()
    images: tuple[Any, ...] = ()

    @property
    def seed(self) -> int:
        """A function of the ids alone: who asks again gets the same noise."""
        digest = hashlib.sha256(np.asarray(self.ids, dtype="<i8").tobytes()).digest()
        return int.from_bytes(digest[:8], "big") >> 64 - EXACT_BITS


class Prompts:
    """The prompts of questions about one state."""

    def __init__(self, known: Known, state: State, *, behind: bool) -> None:
        """`behind`: whether the state stands behind the questions; a conversation never does.

        Raises:
            PromptError: a picture that cannot be read.
        """
        self._shows = state.shows and known.look is not None
        if state.shows and known.look is not None:
            seen = tuple(known.look(state.conversation))
            state = State(parts=tuple(seen[0]["content"])) if state.parts else State(messages=seen)
        self._known, self._state = known, state
        self._behind = behind and not state.messages

    def of(self, puts: Sequence[Put], *, joint: bool) -> Prompt:
        """The prompt that asks these questions.

        What is kept follows from the state alone, or, where that stands behind, from the questions alone: so a prompt
        is encoded in the same pieces whoever else is asked.

        Raises:
            ContextLengthError: longer than the context.
        """
        ids, images = self._laid(prompts.messages(self._state, puts, joint=joint, behind=self._behind))
        if self._behind:
            states = [State(text=text) for text in _STATES]
            before = _shared(*(self._ids(prompts.messages(s, puts, joint=joint, behind=True)) for s in states))
        else:
            before = self._before
        shared = len(_shared(before, ids))
        return Prompt(ids=ids + self._known.thought, kept=(shared,) if shared else (), images=images)

    @cached_property
    def reply(self) -> Prompt:
        """The conversation as it is, up to where its reply begins."""
        ids, images = self._laid(self._state.conversation)
        return Prompt(ids=ids, kept=(len(ids) - 1,) if len(ids) > 1 else (), images=images)

    def check(self, least: int) -> None:
        """Makes sure that the state leaves room for some question.

        Args:
            least: positions of the smallest canvas.

        Raises:
            ContextLengthError: it does not.
        """
        ids = self._short if self._behind else self._before
        if len(ids) + least > self._known.max_context:
            raise ContextLengthError(len(ids), self._known.max_context)

    @property
    def shared(self) -> int:
        """Tokens that the prompt of every question begins with, where the state stands before it."""
        return len(self._before)

    def least(self, put: Put) -> int:
        """About how many tokens a question's own lines take, without all that stands around them."""
        try:
            return len(self._known.encode(prompts.block(put, 1)))
        except PromptError:
            return 0

    @cached_property
    def _before(self) -> tuple[int, ...]:
        """The ids that the prompt of every question begins with."""
        return _shared(*(self._ids(self._probe(text)) for text in _QUESTIONS))

    @cached_property
    def _short(self) -> tuple[int, ...]:
        return self._ids(self._probe(_QUESTIONS[0]))

    def _probe(self, asked: str) -> list[Mapping[str, Any]]:
        if self._state.messages:
            return [*self._state.messages, {"role": "user", "content": asked}]
        return [{"role": "user", "content": prompts.asking(self._state, asked)}]

    def _ids(self, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        return self._laid(messages)[0]

    def _laid(self, messages: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...], tuple[Any, ...]]:
        if not self._shows or self._known.lay_out is None:
            return tuple(self._known.tokenize(messages)), ()
        ids, images = self._known.lay_out(messages)
        return tuple(ids), images


def _shared(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """What both begin with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(token for token, _ in pairs)
