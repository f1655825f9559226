"""Questions on their way: rounds of reads, all in one place of the queue, and between them what the answers say."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TypeVar

from starlette.requests import Request

from redraft.core.decisions import Decisions
from redraft.core.engine import Engine
from redraft.core.reads import Read, Reading, Readings
from redraft.server.flight import Client, Server, check_end
from redraft.server.jobs import Inbox, Job

T = TypeVar("T")
Rounds = Generator[list[Read], list[Reading], Decisions]


class Decider:
    """One request. Whatever happens to it, `close` ends its reads and gives its place back."""

    def __init__(self, server: Server, request: Request, engine: Engine, model: str, field: str) -> None:
        """Takes a place; `model` is the name that was asked for, `field` what the request's state is called.

        Raises:
            ApiError: there is none.
        """
        self.engine, self.model = engine, model
        self._server, self._request, self._field = server, request, field
        self._deadline = server.deadline()
        self._job: Job | None = None
        self._tokens = 0
        server.scheduler.reserve(1)
        self._client = Client(request)
        request.state.model = model
        request.state.tokens = lambda: (self._tokens or "-", 0)

    async def work(self, work: Callable[[], T]) -> T:
        """What takes the processor, but not the model, on a thread of its own.

        Raises:
            ApiError: it was not there by the deadline, the server ends, or the client hung up.
        """
        return await self._client.unless_gone(self._server.prepared(self._request, work, self._deadline))

    async def decide(self, begin: Callable[[], Rounds]) -> Decisions:
        """The answers.

        Raises:
            ApiError: no time, no memory, or no client any more.
            InputError: a state or questions that cannot work.
        """
        rounds = await self.work(begin)
        readings: list[Reading] | None = None
        while True:
            reads = await self.work(partial(_moved, rounds, readings))
            if isinstance(reads, Decisions):
                return reads
            readings = await self._read(reads) if reads else []

    async def _read(self, reads: list[Read]) -> list[Reading]:
        scheduler, inbox = self._server.scheduler, Inbox()
        prepared = await self.work(partial(self.engine.prepare_reads, reads))
        scheduler.check_memory(prepared, "the state needs", f"shorten {self._field}", self._field)
        job = self._job = Job(prepared, partial(inbox.put, 0), False, self._deadline, self.model)
        scheduler.submit(job)
        _, event = await self._client.unless_gone(inbox.get())
        self._job = None
        assert isinstance(event, Readings)
        check_end(job, event)
        self._tokens += sum(reading.prompt_tokens for reading in event.readings)
        return list(event.readings)

    def close(self) -> None:
        """Ends it."""
        self._client.close()
        if self._job is not None:
            self._server.scheduler.cancel(self._job)
        self._server.scheduler.release(1)


def _moved(rounds: Rounds, readings: list[Reading] | None) -> list[Read] | Decisions:
    """The next round, or what has come of all of them."""
    try:
        return rounds.send(readings)  # type: ignore[arg-type]
    except StopIteration as end:
        return end.value
