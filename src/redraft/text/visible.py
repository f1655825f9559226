"""What of a reply may be shown before it is whole: text that will not turn out to be a call or a thought."""

from __future__ import annotations

from redraft.text.calls import CALL_OPEN

_CHANNEL_OPEN, _CHANNEL_CLOSE = "<|channel>", "<channel|>"
# A bare "call:" may be a call that lost its marker.
_HELD = (CALL_OPEN, _CHANNEL_OPEN, "<turn|>", "<|turn>", "call:")


class Visible:
    """Takes the raw reply piece by piece. What it releases is a beginning of the answer that the whole reply has.

    With `plain`, the reply is its answer as it stands: a constraint says what it is.
    """

    def __init__(self, *, plain: bool) -> None:
        self._plain = plain
        self._raw = ""
        self._released = 0

    def add(self, piece: str) -> str:
        """What may be shown now, behind what was before."""
        self._raw += piece
        safe = self._raw if self._plain else _safe(self._raw)
        new = safe[self._released :]
        self._released += len(new)
        return new

    def rest(self, text: str) -> str:
        """What the whole answer adds."""
        return text[self._released :]


def _safe(raw: str) -> str:
    if raw.lstrip().startswith(_CHANNEL_OPEN):
        # The thought comes with the whole reply; what follows it may be shown.
        end = raw.find(_CHANNEL_CLOSE)
        raw = raw[end + len(_CHANNEL_CLOSE) :] if end >= 0 else ""
    found = [place for marker in _HELD if (place := raw.find(marker)) >= 0]
    end = min(found, default=len(raw) - max(_overlap(raw, marker) for marker in _HELD))
    # The answer is stripped in the end.
    return raw[:end].strip()


def _overlap(text: str, marker: str) -> int:
    return next((n for n in range(min(len(text), len(marker) - 1), 0, -1) if text.endswith(marker[:n])), 0)
