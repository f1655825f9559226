"""What was made once and is kept for a while, within a bound of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by their keys, least recently used out first. Any thread may ask.

    Attributes:
        nbytes: of what is kept.
    """

    def __init__(self, budget_bytes: int, size: Callable[[T], int]) -> None:
        """`size` says what a value takes."""
        self.budget_bytes, self.nbytes = budget_bytes, 0
        self._size = size
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made where nobody has kept it. Two who ask at once may both make it."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        made = make()
        with self._lock:
            if key not in self._values:
                self._values[key] = made
                self.nbytes += self._size(made)
            while self._values and self.nbytes > self.budget_bytes:
                self.nbytes -= self._size(self._values.popitem(last=False)[1])
        return made
