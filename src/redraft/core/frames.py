"""A draft as a frame that is small: what has changed since the frame before, and entropies in 16 steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from redraft.core.draft import Draft

# One hexadecimal digit a position: 0 is certain, each step up is half as certain.
LEVELS = "0123456789abcdef"
_SMALLEST_NATS = 0.002
_BOUNDS = [_SMALLEST_NATS * 2**step for step in range(1, len(LEVELS) - 1)]


class Frames:
    """Makes the frames of one reply.

    A frame has `canvas`, `step`, `length`, `temperature`; `set`: [position, text] of each position whose text has
    changed since the last frame of this canvas that was sent; `accepted`: a bit a position, as hexadecimal digits, the
    first position in the highest bit; `entropy`: a digit a position.
    """

    def __init__(self, pieces: Callable[[Sequence[int]], list[str]]) -> None:
        self._pieces = pieces
        self._canvas = -1
        self._shown: tuple[int, ...] = ()

    def frame(self, draft: Draft) -> dict[str, Any]:
        """The frame of a draft, taken as sent."""
        if draft.canvas != self._canvas or len(draft.token_ids) > len(self._shown):
            self._canvas, self._shown = draft.canvas, ()
        before = self._shown + (-1,) * (len(draft.token_ids) - len(self._shown))
        places = [i for i, token in enumerate(draft.token_ids) if before[i] != token]
        texts = self._pieces([draft.token_ids[i] for i in places]) if places else []
        self._shown = draft.token_ids
        length = len(draft.token_ids)
        digits = -(-length // 4)
        bits = "".join(["1" if accepted else "0" for accepted in draft.accepted]).ljust(digits * 4, "0")
        return {
            "canvas": draft.canvas,
            "step": draft.step,
            "length": length,
            "temperature": round(draft.temperature, 3),
            "set": [[i, text] for i, text in zip(places, texts, strict=True)],
            "accepted": f"{int(bits, 2):0{digits}x}" if bits else "",
            "entropy": "".join(map(level, draft.entropy_nats)),
        }


def level(nats: float) -> str:
    """The digit of an entropy: 0 below 0.002 nats, then one more for each factor of two."""
    # A canvas asks 256 times a step; counting bounds is half the time of a logarithm.
    return LEVELS[1 + bisect_right(_BOUNDS, nats)] if nats > _SMALLEST_NATS else LEVELS[0]
