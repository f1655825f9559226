"""The prefix cache: ends of turns that a conversation can go on from, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from redraft.model.cache import SequenceCache

BUDGET_BYTES = 512 * 2**20


class PrefixCache:
    """Snapshots of encoded conversations by their token ids.

    Only whole snapshots are reused, never a part of one: a text then depends on its own conversation alone, not on
    which strangers happened to begin alike.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self.budget_bytes = budget_bytes
        self._snapshots: OrderedDict[tuple[int, ...], SequenceCache] = OrderedDict()

    def take(self, token_ids: Sequence[int]) -> SequenceCache | None:
        """A fork of the longest snapshot that these ids begin with."""
        ids = tuple(token_ids)
        best = max((key for key in self._snapshots if ids[: len(key)] == key), key=len, default=None)
        if best is None:
            return None
        self._snapshots.move_to_end(best)
        return self._snapshots[best].fork()

    def put(self, token_ids: Sequence[int], cache: SequenceCache) -> None:
        """Keeps a fork of `cache`, whose encoded ids are `token_ids`."""
        key = tuple(token_ids)
        assert cache.length == len(key)
        self._snapshots[key] = cache.fork()
        self._snapshots.move_to_end(key)
        while len(self._snapshots) > 1 and self.nbytes > self.budget_bytes:
            self._snapshots.popitem(last=False)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held; memory shared between snapshots counts once for each."""
        return sum(cache.nbytes for cache in self._snapshots.values())
