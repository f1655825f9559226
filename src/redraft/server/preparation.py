"""Requests are prepared on a few threads. A thread cannot be stopped, but who waits for one can be answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from redraft.server.errors import ApiError

T = TypeVar("T")
# Requests that are prepared at once; those with a schema or a large body apart, which take a core for seconds, and
# some of them gigabytes.
_PLAIN, _SLOW = 8, 2


class Preparation:
    """Two lanes, so that what takes seconds holds up nothing else."""

    def __init__(self) -> None:
        self._plain, self._slow = _Lane(_PLAIN), _Lane(_SLOW)
        self._awaited: set[asyncio.Future] = set()

    async def run(self, work: Callable[[], T], *, slow: bool, deadline: float) -> T:
        """Its result.

        Args:
            work: runs on a thread; if it comes too late, it is left to itself there.
            slow: whether it may take seconds.
            deadline: of `time.monotonic`.

        Raises:
            ApiError: it was not there by the deadline, or the server ends.
        """
        lane = self._slow if slow else self._plain
        answer = asyncio.wrap_future(lane.submit(work))
        self._awaited.add(answer)
        try:
            await asyncio.wait({answer}, timeout=max(0.0, deadline - time.monotonic()))
            if answer.cancelled():
                raise ApiError(503, "the server is shutting down", code="shutting_down")
            if not answer.done():
                raise ApiError(504, "the request took longer to prepare than the server allows", code="timeout")
            return answer.result()
        finally:
            answer.cancel()
            self._awaited.discard(answer)

    def give_up(self) -> None:
        """Answers all who wait: nothing more comes."""
        for answer in self._awaited:
            answer.cancel()

    def stands_still(self, seconds: float) -> bool:
        """Whether in a lane every thread has been at the same work for longer than this."""
        return any(lane.stands_still(seconds) for lane in (self._plain, self._slow))

    @property
    def is_at_work(self) -> bool:
        """Whether a thread is at something still."""
        return bool(self._plain.since or self._slow.since)


class _Lane:
    """Attributes:
    since: when each thread that is at work has begun it, `time.monotonic`.
    """

    def __init__(self, count: int) -> None:
        self._count, self._pool = count, ThreadPoolExecutor(count, thread_name_prefix="prepare")
        self.since: dict[int, float] = {}

    def submit(self, work: Callable[[], T]) -> Future[T]:
        return self._pool.submit(self._timed, work)

    def stands_still(self, seconds: float) -> bool:
        since = list(self.since.values())
        return len(since) == self._count and time.monotonic() - max(since) > seconds

    def _timed(self, work: Callable[[], T]) -> T:
        thread = threading.get_ident()
        self.since[thread] = time.monotonic()
        try:
            return work()
        finally:
            del self.since[thread]
