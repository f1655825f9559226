"""From committed canvases to what the user gets: cut at end-of-turn, at the budget, at stop strings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redraft.core.results import FinishReason
from redraft.text.output import End, Parts, Reading, overlap
from redraft.text.tokenizer import Tokenizer
from redraft.text.visible import Visible

_INCOMPLETE = "\ufffd"


class Added(NamedTuple):
    """What a canvas adds for the user: ids, raw text, and what of the answer may be shown now."""

    token_ids: list[int]
    text: str
    shown: str


class Reply:
    """The reply as it grows by canvases.

    Stop strings act on the answer, as `reading` has it: neither on thoughts nor on calls.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        end_ids: Iterable[int],
        max_new_tokens: int,
        stop: Sequence[str],
        reading: Reading | None = None,
        *,
        skip_special_tokens: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.max_new_tokens = max_new_tokens
        self.stop = tuple(stop) if tokenizer is not None else ()
        self.token_ids: list[int] = []
        self.text = ""
        self.finish: FinishReason | None = None
        self._skip_special_tokens = skip_special_tokens
        self._sent = 0
        self.read_as(reading or Reading())

    def read_as(self, reading: Reading) -> None:
        """Reads the reply in another way, before it has begun."""
        self.reading, self._visible = reading, Visible(**dataclasses.asdict(reading))

    @property
    def end(self) -> End:
        """How it ended."""
        if self.finish is None:
            return "open"
        return "whole" if self.finish in ("stop", "empty") else "cut"

    def add(self, canvas: Sequence[int]) -> Added:
        """Takes a committed canvas.

        Text that may still become a stop string, or whose last character is not complete, is held back until the
        next canvas or the end.
        """
        ids: list[int] = []
        for token_id in canvas:
            if token_id in self.end_ids:
                self.finish = "stop"
                break
            if len(self.token_ids) + len(ids) == self.max_new_tokens:
                self.finish = "length"
                break
            ids.append(token_id)
        before = len(self.token_ids)
        self.token_ids += ids
        if self.finish is None and len(self.token_ids) == self.max_new_tokens:
            self.finish = "length"
        if self.tokenizer is not None:
            self.text = self.decoded(self.token_ids)
            if self.stop:
                self._cut_at_stop()
        text = self._release()
        return Added(self.token_ids[before:], text, self._visible.add(text, self.end))

    def decoded(self, token_ids: Sequence[int]) -> str:
        """The raw text of these tokens, as this reply has it."""
        assert self.tokenizer is not None
        return self.tokenizer.decode(token_ids, skip_special_tokens=self._skip_special_tokens)

    def close(self, reason: FinishReason) -> str:
        """Ends the reply for another reason, unless it has ended; returns text that was held back."""
        self.finish = self.finish or reason
        return self._release()

    def _parts(self) -> Parts:
        return self.reading.parts(self.text, self.end)

    def _cut_at_stop(self) -> None:
        parts = self._parts()
        answer = parts.shown(self.text)
        found = [position for stop in self.stop if (position := answer.find(stop)) >= 0]
        if not found:
            return
        self.text = self.text[: parts.place(min(found))]
        self.finish = "stop"
        # The longest run of tokens that lies before the stop string as a whole.
        count = len(self.token_ids)
        while count and not self.text.startswith(self.decoded(self.token_ids[:count])):
            count -= 1
        del self.token_ids[count:]

    def _release(self) -> str:
        end = len(self.text)
        if self.finish is None:
            if self.stop:
                parts = self._parts()
                answer = parts.shown(self.text)
                begun = max(overlap(answer, stop) for stop in self.stop)
                end = parts.place(len(answer) - begun) if begun else parts.settled
            while end and self.text[end - 1] == _INCOMPLETE:
                end -= 1
        piece = self.text[self._sent : max(self._sent, end)]
        self._sent += len(piece)
        return piece
