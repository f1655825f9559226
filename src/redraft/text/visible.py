"""What of a reply may be shown before it is whole: text that will not turn out to be a call or a thought."""

from __future__ import annotations

from redraft.text.output import End, Reading


class Visible:
    """Takes the raw reply piece by piece. What it releases is a beginning of the answer that the whole reply has."""

    def __init__(self, *, plain: bool = False, bare_calls: bool = True, thinking: bool = False) -> None:
        """Arguments as in `Reading`."""
        self._reading = Reading(plain=plain, bare_calls=bare_calls, thinking=thinking)
        self._raw = ""
        self._released = 0

    def add(self, piece: str, end: End = "open") -> str:
        """What may be shown now, behind what was before; `end` says how the reply ends with this piece."""
        self._raw += piece
        return self.rest(self._reading.parsed(self._raw, end).text)

    def rest(self, text: str) -> str:
        """What the answer so far, or the whole of it, adds."""
        new = text[self._released :]
        self._released += len(new)
        return new
