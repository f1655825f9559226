"""A reply on its way: what is wanted of the engine, and where its events arrive."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from redraft.core.engine import Prepared
from redraft.core.events import Draft, Final, News

# How much longer than the longest one a step may take before the engine counts as standing still.
_PATIENCE = 5


class Inbox:
    """Where events of one HTTP request arrive. Of drafts that nobody has taken yet, the last one stays."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, News]] = deque()
        self._arrived = asyncio.Event()
        self.dropped = 0

    def put(self, number: int, event: News) -> None:
        """Adds an event of choice `number`."""
        if isinstance(event, Draft):
            waiting = [item for item in self._events if item[0] == number and isinstance(item[1], Draft)]
            for item in waiting:
                self._events.remove(item)
                self.dropped += 1
        self._events.append((number, event))
        self._arrived.set()

    async def get(self) -> tuple[int, News]:
        """The next one."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()


@dataclass(eq=False)
class Job:
    """One reply that is wanted.

    Attributes:
        prepared: for the engine.
        deliver: takes its events, in the event loop's thread.
        drafts: whether drafts are wanted.
        deadline: of `time.monotonic`.
        model: the name that was asked for.
        late: whether the deadline ended it.
        ended: whether its last event was delivered.
        queued: since when it waits, `time.monotonic`.
    """

    prepared: Prepared
    deliver: Callable[[News], None]
    drafts: bool
    deadline: float
    model: str
    late: bool = False
    ended: bool = False
    queued: float = field(default_factory=time.monotonic)


def lost(job: Job, finish_reason: Literal["cancelled", "error"]) -> Final:
    """What a job ends with that the engine has not ended."""
    return job.prepared.lost(finish_reason, "the engine failed" if finish_reason == "error" else None)


class Moved:
    """When the engine has last ended a step, and how long the longest has taken."""

    def __init__(self) -> None:
        self._count, self._at, self._longest = -1, time.monotonic(), 0.0

    def begin(self) -> None:
        """There is something to do, or to do anew."""
        self._at = time.monotonic()

    def see(self, count: int) -> None:
        """So many steps have ended."""
        if count != self._count:
            now = time.monotonic()
            self._longest = max(self._longest, now - self._at)
            self._count, self._at = count, now

    def stands_still(self, seconds: float) -> bool:
        """Whether it has not moved for so long, and for several times what its longest step took."""
        return time.monotonic() - self._at > max(seconds, _PATIENCE * self._longest)
