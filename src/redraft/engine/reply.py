"""From committed canvases to what the user gets: cut at end-of-turn, at the budget, at stop strings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redraft.core.results import FinishReason
from redraft.text.tokenizer import Tokenizer

_INCOMPLETE = "\ufffd"


class Reply:
    """The reply as it grows by canvases."""

    def __init__(
        self, tokenizer: Tokenizer | None, end_ids: Iterable[int], max_new_tokens: int, stop: Sequence[str]
    ) -> None:
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.max_new_tokens = max_new_tokens
        self.stop = tuple(stop) if tokenizer is not None else ()
        self.token_ids: list[int] = []
        self.text = ""
        self.finish: FinishReason | None = None
        self._sent = 0

    def add(self, canvas: Sequence[int]) -> tuple[list[int], str]:
        """Takes a committed canvas; returns the ids and the text it adds for the user.

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
            self.text = self.tokenizer.decode(self.token_ids)
            self._cut_at_stop()
        return self.token_ids[before:], self._release()

    def close(self, reason: FinishReason) -> str:
        """Ends the reply for another reason, unless it has ended; returns text that was held back."""
        self.finish = self.finish or reason
        return self._release()

    def _cut_at_stop(self) -> None:
        assert self.tokenizer is not None
        found = [position for stop in self.stop if (position := self.text.find(stop)) >= 0]
        if not found:
            return
        self.text = self.text[: min(found)]
        self.finish = "stop"
        # The longest run of tokens that lies before the stop string as a whole.
        count = len(self.token_ids)
        while count and not self.text.startswith(self.tokenizer.decode(self.token_ids[:count])):
            count -= 1
        del self.token_ids[count:]

    def _release(self) -> str:
        end = len(self.text)
        if self.finish is None:
            end -= max((_overlap(self.text, stop) for stop in self.stop), default=0)
            while end and self.text[end - 1] == _INCOMPLETE:
                end -= 1
        piece = self.text[self._sent : max(self._sent, end)]
        self._sent += len(piece)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
