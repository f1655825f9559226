"""Draws that depend on a text alone: the same in every process, on every machine, in every version of Python."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_WORD = 2**64 - 1


class Draws:
    """A stream of draws, as long as it is asked for."""

    def __init__(self, *key: str) -> None:
        """Begins the stream of a key."""
        digest = hashlib.sha256("\0".join(key).encode()).digest()
        self._state = int.from_bytes(digest[:8], "big")

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1."""
        # SplitMix64 (Steele, Lea and Flood 2014).
        self._state = (self._state + 0x9E3779B97F4A7C15) & _WORD
        mixed = ((self._state ^ (self._state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
        return (mixed ^ (mixed >> 31)) % bound

    def chance(self, share: float) -> bool:
        """True this often."""
        return self.below(2**32) < share * 2**32

    def one(self, values: Sequence[T]) -> T:
        """One of these."""
        return values[self.below(len(values))]

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """So many of these, or all, in random order."""
        # Fisher and Yates, with those places alone written down that an exchange has reached.
        moved: dict[int, int] = {}
        chosen = []
        for place in range(min(count, len(values))):
            other = place + self.below(len(values) - place)
            chosen.append(values[moved.get(other, other)])
            moved[other] = moved.get(place, place)
        return chosen

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """All of these in random order."""
        return self.some(values, len(values))
