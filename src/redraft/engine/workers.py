"""Threads that move requests side by side.

A small model's step is a thousand operators too short to share: a second thread within one request gains nothing, one
beside it nearly half as much again. How many threads a request has is fixed with the model, so that company cannot
change a last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Parameters below which a request is moved by one thread.
SMALL = 2**25

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """`count` threads; with one, the caller's own does the work."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "redraft") if count > 1 else None

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The function's results, in the order of the items."""
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))
