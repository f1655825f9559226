"""The prefix cache: places that a conversation can go on from, least recently used out first."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence

from redraft.model.cache import SequenceCache

BUDGET_BYTES = 512 * 2**20
# Whose it is, where the pieces end in which it was encoded, and its ids.
_Key = tuple[int, tuple[int, ...], tuple[int, ...]]


class PrefixCache:
    """Snapshots of encoded conversations by their token ids.

    Who puts a snapshot in has encoded it in the pieces of `Stops`, and who takes one goes on with them: a text then
    depends on its own conversation alone, and not on what was kept of others.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._held, self._owner, self._closed = _Snapshots(budget_bytes), 0, False

    @property
    def budget_bytes(self) -> int:
        """Of all who share it."""
        return self._held.budget_bytes

    @property
    def nbytes(self) -> int:
        """Keys and values of all who share it; memory that snapshots share counts once for each."""
        return self._held.nbytes

    def apart(self) -> PrefixCache:
        """One within the same bound of bytes that neither finds what is kept here, nor is found: other weights make
        other keys and values of the same ids."""
        other = PrefixCache.__new__(PrefixCache)
        other._held, other._owner, other._closed = self._held, self._held.new_owner(), False
        return other

    def close(self) -> None:
        """Drops what is kept here, and keeps nothing more."""
        with self._held.lock:
            self._closed = True
            self._held.drop_all(self._owner)

    def take(self, token_ids: Sequence[int], stops: Sequence[int]) -> SequenceCache | None:
        """A fork of the longest snapshot that these ids begin with, encoded in the pieces that these stops part."""
        held = self._held
        with held.lock:
            for length in sorted((n for n in stops if (self._owner, n) in held.lengths), reverse=True):
                key = (self._owner, tuple(stop for stop in stops if stop <= length), tuple(token_ids[:length]))
                if key in held.snapshots:
                    held.snapshots.move_to_end(key)
                    return held.snapshots[key].fork()
        return None

    def put(self, token_ids: Sequence[int], cache: SequenceCache) -> None:
        """Keeps a fork of `cache`, whose encoded ids are `token_ids`."""
        key = (self._owner, tuple(cache.ends), tuple(token_ids))
        assert cache.length == len(token_ids)
        kept = cache.fork()
        with self._held.lock:
            if not self._closed:
                self._held.put(key, kept)


class _Snapshots:
    """What several owners keep within one bound; all of it under `lock`."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes, self.nbytes = budget_bytes, 0
        self.snapshots: OrderedDict[_Key, SequenceCache] = OrderedDict()
        # By owner and length.
        self.lengths: Counter[tuple[int, int]] = Counter()
        self.lock = threading.Lock()
        self._owners = 0

    def new_owner(self) -> int:
        with self.lock:
            self._owners += 1
            return self._owners

    def put(self, key: _Key, kept: SequenceCache) -> None:
        self._drop(key)
        self.snapshots[key] = kept
        self.lengths[key[0], kept.length] += 1
        self.nbytes += kept.nbytes
        while self.snapshots and self.nbytes > self.budget_bytes:
            self._drop(next(iter(self.snapshots)))

    def drop_all(self, owner: int) -> None:
        for key in [key for key in self.snapshots if key[0] == owner]:
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        dropped = self.snapshots.pop(key, None)
        if dropped is not None:
            self.nbytes -= dropped.nbytes
            place = key[0], dropped.length
            self.lengths[place] -= 1
            if not self.lengths[place]:
                del self.lengths[place]
