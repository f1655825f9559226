"""The prefix cache: places that a conversation can go on from, least recently used out first."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence

from redraft.model.cache import SequenceCache

BUDGET_BYTES = 512 * 2**20
# Where the pieces end in which it was encoded, and its ids.
_Key = tuple[tuple[int, ...], tuple[int, ...]]


class PrefixCache:
    """Snapshots of encoded conversations by their token ids.

    `nbytes` counts keys and values; memory that snapshots share counts once for each.

    Who puts a snapshot in has encoded it in the pieces of `Stops`, and who takes one goes on with them: a text then
    depends on its own conversation alone, and not on what was kept of others.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self.budget_bytes = budget_bytes
        self._snapshots: OrderedDict[_Key, SequenceCache] = OrderedDict()
        self._lengths: Counter[int] = Counter()
        self.nbytes = 0
        self._lock = threading.Lock()

    def take(self, token_ids: Sequence[int], stops: Sequence[int]) -> SequenceCache | None:
        """A fork of the longest snapshot that these ids begin with, encoded in the pieces that these stops part."""
        with self._lock:
            for length in sorted((n for n in stops if n in self._lengths), reverse=True):
                key = (tuple(stop for stop in stops if stop <= length), tuple(token_ids[:length]))
                if key in self._snapshots:
                    self._snapshots.move_to_end(key)
                    return self._snapshots[key].fork()
        return None

    def put(self, token_ids: Sequence[int], cache: SequenceCache) -> None:
        """Keeps a fork of `cache`, whose encoded ids are `token_ids`."""
        key = (tuple(cache.ends), tuple(token_ids))
        assert cache.length == len(token_ids)
        kept = cache.fork()
        with self._lock:
            self._drop(key)
            self._snapshots[key] = kept
            self._lengths[len(token_ids)] += 1
            self.nbytes += kept.nbytes
            while self._snapshots and self.nbytes > self.budget_bytes:
                self._drop(next(iter(self._snapshots)))

    def _drop(self, key: _Key) -> None:
        dropped = self._snapshots.pop(key, None)
        if dropped is not None:
            self.nbytes -= dropped.nbytes
            self._lengths[dropped.length] -= 1
            if not self._lengths[dropped.length]:
                del self._lengths[dropped.length]
