"""One thread moves the engine; requests join and leave between its steps."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from redraft.core.engine import Engine, Prepared, Running
from redraft.core.events import Final, News
from redraft.server.errors import ApiError
from redraft.server.jobs import Job, Moved, lost
from redraft.server.preparation import Preparation
from redraft.server.settings import Settings

_log = logging.getLogger(__name__)
# A request ends with its deadline in the engine, unless that stands still: then it ends so much later without it.
_GRACE_S = 2.0


class Scheduler:
    """Places for requests, their preparation, a queue before them, and the engine's thread behind them."""

    def __init__(
        self, engine: Engine, settings: Settings, on_event: Callable[[Job, News], None] = lambda job, event: None
    ) -> None:
        """`on_event` sees every event, in the event loop's thread."""
        self.engine, self.settings, self._on_event = engine, settings, on_event
        self.draining = False
        self.preparation = Preparation()
        self._reserved = 0
        self._open: set[Job] = set()
        # Of the open ones.
        self._bytes = 0
        self._commands: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._jobs: dict[Prepared, Job] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._moved = Moved()

    def start(self) -> None:
        """Starts the thread; events are delivered to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._watching = self._loop.create_task(self._watch())
        self._thread.start()

    @property
    def reserved(self) -> int:
        """Requests that are being prepared, wait or run."""
        return self._reserved

    @property
    def running(self) -> int:
        """Requests that take part in the steps."""
        return len(self._jobs)

    @property
    def request_bytes(self) -> int:
        """Memory for the keys and values of requests that take part in the steps."""
        return self.settings.request_bytes or self.engine.request_bytes

    @property
    def stands_still(self) -> bool:
        """Whether nothing moves though there is something to do."""
        seconds = self.settings.still_s
        return self.preparation.stands_still(seconds) or (bool(self._jobs) and self._moved.stands_still(seconds))

    @property
    def hangs(self) -> bool:
        """Whether a thread is at something still, though nobody waits for it."""
        return self.preparation.is_at_work or self._thread.is_alive()

    def reserve(self, count: int) -> None:
        """Takes places for `count` replies, to be given back by `release`.

        Raises:
            ApiError: 503 while the server ends, 429 when it is full.
        """
        if self.draining:
            raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"retry-after": "5"})
        most = self.settings.max_running + self.settings.max_waiting
        if count > most:
            raise ApiError(400, f"{count} replies at once are more than this server's {most} places", param="n")
        if self._reserved + count > most:
            message = f"{self._reserved} requests are under way, more than {most} are not taken: try again later"
            raise ApiError(429, message, code="queue_full", headers={"retry-after": self._patience()})
        self._reserved += count

    def _patience(self) -> str:
        """Seconds after which a refused client may try again."""
        return str(1 + self._reserved // self.settings.max_running)

    def release(self, count: int) -> None:
        """Gives places back."""
        self._reserved -= count

    def check_memory(
        self,
        prepared: Prepared,
        what: str = "prompt and max_tokens together need",
        mend: str = "shorten the prompt or lower max_tokens",
        param: str = "max_tokens",
    ) -> None:
        """Whether a request may wait: as many times what may run may be under way in bytes as may in places.

        Args:
            prepared: the request.
            what, mend, param: for the error: what is too large, how it gets smaller, and the field.

        Raises:
            ApiError: 429 if not; 400 where it could never run.
        """
        wanted, most = prepared.memory_bytes, self.request_bytes
        if wanted > most:
            message = (
                f"{what} {_megabytes(wanted)} of keys and values, this server has {_megabytes(most)} for them: {mend}"
            )
            raise ApiError(400, message, param=param, code="request_too_large")
        if self._bytes + wanted > most * (1 + self.settings.max_waiting / self.settings.max_running):
            message = f"requests of {_megabytes(self._bytes)} are under way: try again later"
            raise ApiError(429, message, code="queue_full", headers={"retry-after": self._patience()})

    def submit(self, job: Job) -> None:
        """Queues a job; its events end with a `Final`, whatever becomes of the engine."""
        self._open.add(job)
        self._bytes += job.prepared.memory_bytes
        self._commands.put(("add", job))

    def cancel(self, job: Job) -> None:
        """Ends a job within a step, if it has not ended."""
        self._commands.put(("cancel", job))

    async def drain(self, seconds: float) -> None:
        """Takes no more requests, and waits so long for those under way; then they are cancelled."""
        self.draining = True
        end = time.monotonic() + seconds
        while self._reserved and time.monotonic() < end:
            await asyncio.sleep(0.05)
        self._commands.put(("cancel", None))
        self.preparation.give_up()
        while self._reserved and time.monotonic() < end + _GRACE_S:
            await asyncio.sleep(0.05)
        self.give_up()

    def give_up(self) -> None:
        """Answers all who still wait: nothing more comes. In the event loop's thread."""
        self.preparation.give_up()
        for job in list(self._open):
            self._end(job)

    async def stop(self) -> None:
        """Ends the thread, unless that hangs."""
        self._watching.cancel()
        self._commands.put(("stop", None))
        end = time.monotonic() + _GRACE_S
        while self._thread.is_alive() and time.monotonic() < end:
            await asyncio.sleep(0.01)

    def _run(self) -> None:
        running = self.engine.running()
        while True:
            # An idle server waits here, and uses no CPU.
            while not (self._jobs or self._waiting) or not self._commands.empty():
                kind, job = self._commands.get()
                if kind == "stop":
                    return
                if kind == "add" and job is not None:
                    self._waiting.append(job)
                else:
                    self._cancel(running, job)
                self._moved.begin()
            try:
                self._admit(running)
                self._late(running)
                events: list[tuple[Job, News]] = [(self._jobs[one], event) for one, event in running.step()]
                self._moved.see(running.moved)
            except Exception:
                # What cannot be laid at the door of one request; those under way are lost, the next ones are not.
                _log.exception("the engine failed")
                events = [(job, lost(job, "error")) for job in self._jobs.values()]
                running = self.engine.running()
            for job, event in events:
                if isinstance(event, Final):
                    self._jobs.pop(job.prepared, None)
            self._deliver(events)

    def _admit(self, running: Running) -> None:
        while self._waiting and len(self._jobs) < self.settings.max_running and self._fits(self._waiting[0]):
            job = self._waiting.popleft()
            self._jobs[job.prepared] = job
            running.add(job.prepared, drafts=job.drafts)

    def _fits(self, job: Job) -> bool:
        """Whether there is memory for it beside those that run. In order: a large one is not overtaken for ever."""
        held = sum(one.prepared.memory_bytes for one in self._jobs.values())
        return not self._jobs or held + job.prepared.memory_bytes <= self.request_bytes

    def _cancel(self, running: Running, job: Job | None) -> None:
        """Ends one job, or all of them."""
        for one in list(self._waiting) if job is None else [job]:
            if one in self._waiting:
                self._waiting.remove(one)
                # It never ran; a cancelled one that did ends with its next step.
                self._jobs[one.prepared] = one
                running.add(one.prepared, drafts=False)
        for one in list(self._jobs.values()) if job is None else [job]:
            if one.prepared in self._jobs:
                running.cancel(one.prepared)

    def _late(self, running: Running) -> None:
        now = time.monotonic()
        for job in [*self._jobs.values(), *self._waiting]:
            if now > job.deadline and not job.late:
                job.late = True
                self._cancel(running, job)

    def _deliver(self, events: list[tuple[Job, News]]) -> None:
        if not events:
            return
        assert self._loop is not None

        def hand_over() -> None:
            for job, event in events:
                self._hand_over(job, event)

        # The loop may be gone while the process ends.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(hand_over)

    def _hand_over(self, job: Job, event: News) -> None:
        if job.ended:
            return
        if isinstance(event, Final):
            job.ended = True
            self._open.discard(job)
            self._bytes -= job.prepared.memory_bytes
        self._on_event(job, event)
        job.deliver(event)

    async def _watch(self) -> None:
        """Ends jobs whose deadline the engine has not kept."""
        while True:
            await asyncio.sleep(_GRACE_S / 2)
            now = time.monotonic()
            for job in [job for job in self._open if now > job.deadline + _GRACE_S]:
                job.late = True
                self._end(job)

    def _end(self, job: Job) -> None:
        """Ends a job without the engine."""
        self.cancel(job)
        self._hand_over(job, lost(job, "cancelled"))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
