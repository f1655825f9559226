"""A draft as a frame that is small: what has changed since the frame before, and entropies in 16 steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from redraft.core.events import Draft

# One hexadecimal digit a position: 0 is certain, each step up is half as certain.
LEVELS = "0123456789abcdef"
_SMALLEST_NATS = 0.002


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
        bits = "".join("1" if accepted else "0" for accepted in draft.accepted).ljust(-(-length // 4) * 4, "0")
        return {
            "canvas": draft.canvas,
            "step": draft.step,
            "length": length,
            "temperature": round(draft.temperature, 3),
            "set": [[i, text] for i, text in zip(places, texts, strict=True)],
            "accepted": "".join(f"{int(bits[i : i + 4], 2):x}" for i in range(0, len(bits), 4)),
            "entropy": "".join(map(level, draft.entropy_nats)),
        }


def level(nats: float) -> str:
    """The digit of an entropy: 0 below 0.002 nats, then one more for each factor of two."""
    if not nats > _SMALLEST_NATS:
        return LEVELS[0]
    return LEVELS[min(len(LEVELS) - 1, 1 + int(math.log2(nats / _SMALLEST_NATS)))]
