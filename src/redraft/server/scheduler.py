"""One thread moves the engine; requests join and leave between its steps."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from redraft.core.engine import Engine, Prepared, Running
from redraft.core.events import Draft, Event
from redraft.core.results import Generation, GenerationStats
from redraft.server.errors import ApiError
from redraft.server.settings import Settings

_log = logging.getLogger(__name__)


class Inbox:
    """Where events of one HTTP request arrive. Of drafts that nobody has taken yet, the last one stays."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, Event]] = deque()
        self._arrived = asyncio.Event()
        self.dropped = 0

    def put(self, number: int, event: Event) -> None:
        """Adds an event of choice `number`."""
        if isinstance(event, Draft):
            waiting = [item for item in self._events if item[0] == number and isinstance(item[1], Draft)]
            for item in waiting:
                self._events.remove(item)
                self.dropped += 1
        self._events.append((number, event))
        self._arrived.set()

    async def get(self) -> tuple[int, Event]:
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
        late: whether the deadline ended it.
        queued: since when it waits, `time.monotonic`.
    """

    prepared: Prepared
    deliver: Callable[[Event], None]
    drafts: bool
    deadline: float
    late: bool = False
    queued: float = field(default_factory=time.monotonic)


class Scheduler:
    """Places for requests, a queue before them, and the engine's thread behind them."""

    def __init__(
        self, engine: Engine, settings: Settings, on_event: Callable[[Job, Event], None] = lambda job, event: None
    ) -> None:
        """`on_event` sees every event, in the event loop's thread."""
        self.engine, self.settings, self._on_event = engine, settings, on_event
        self.draining = False
        self._reserved = 0
        self._commands: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._jobs: dict[Prepared, Job] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Starts the thread; events are delivered to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def reserved(self) -> int:
        """Requests that are being prepared, wait or run."""
        return self._reserved

    @property
    def running(self) -> int:
        """Requests that take part in the steps."""
        return len(self._jobs)

    def reserve(self, count: int) -> None:
        """Takes places for `count` replies, to be given back by `release`.

        Raises:
            ApiError: 503 while the server ends, 429 when it is full.
        """
        if self.draining:
            raise ApiError(503, "the server is shutting down", code="shutting_down", headers={"retry-after": "5"})
        most = self.settings.max_running + self.settings.max_waiting
        if self._reserved + count > most:
            seconds = str(1 + self._reserved // self.settings.max_running)
            raise ApiError(
                429, f"{self._reserved} requests are under way, more than {most} are not taken: try again later",
                code="queue_full", headers={"retry-after": seconds},
            )  # fmt: skip
        self._reserved += count

    def release(self, count: int) -> None:
        """Gives places back."""
        self._reserved -= count

    def submit(self, job: Job) -> None:
        """Queues a job; its events end with a `Generation`."""
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
        while self._reserved and time.monotonic() < end + 2:
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends the thread."""
        self._commands.put(("stop", None))
        await asyncio.to_thread(self._thread.join, 10)

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
            try:
                self._admit(running)
                self._late(running)
                events: list[tuple[Job, Event]] = [(self._jobs[one], event) for one, event in running.step()]
            except Exception:
                # What cannot be laid at the door of one request; those under way are lost, the next ones are not.
                _log.exception("the engine failed")
                events = [(job, _failed(job)) for job in self._jobs.values()]
                running = self.engine.running()
            for job, event in events:
                if isinstance(event, Generation):
                    self._jobs.pop(job.prepared, None)
            self._deliver(events)

    def _admit(self, running: Running) -> None:
        while self._waiting and len(self._jobs) < self.settings.max_running:
            job = self._waiting.popleft()
            self._jobs[job.prepared] = job
            running.add(job.prepared, drafts=job.drafts)

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

    def _deliver(self, events: list[tuple[Job, Event]]) -> None:
        if not events:
            return
        assert self._loop is not None

        def hand_over() -> None:
            for job, event in events:
                self._on_event(job, event)
                job.deliver(event)

        # The loop may be gone while the process ends.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(hand_over)


def _failed(job: Job) -> Generation:
    nothing = GenerationStats(
        prompt_tokens=job.prepared.prompt_tokens, cached_tokens=0, generated_tokens=0, canvases=0, denoising_steps=0,
        encode_passes=0, tokens_per_forward=0.0, time_to_first_canvas_s=0.0, encode_s=0.0, denoise_s=0.0, total_s=0.0,
        tokens_per_second=0.0,
    )  # fmt: skip
    return Generation(
        text="", reasoning=None, tool_calls=(), token_ids=(), finish_reason="error",
        seed=job.prepared.options.seed or 0, stats=nothing, error="the engine failed",
    )  # fmt: skip
