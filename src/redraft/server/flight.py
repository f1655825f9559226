"""The replies that one HTTP request asks for, from their places in the queue to their results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from redraft.core.engine import Engine, Prepared
from redraft.core.events import Final
from redraft.core.results import Generation
from redraft.server.errors import ApiError
from redraft.server.jobs import Inbox, Job
from redraft.server.metrics import Metrics
from redraft.server.prompt_log import PromptLog
from redraft.server.scheduler import Scheduler
from redraft.server.schema import ChatRequest, InfillRequest, Sampling
from redraft.server.settings import Settings

T = TypeVar("T")
# A body whose tokens take a while.
_LARGE_BYTES = 64 * 2**10


class Server:
    """What the routes share."""

    def __init__(self, engine: Engine, settings: Settings, scheduler: Scheduler, metrics: Metrics) -> None:
        self.engine, self.settings, self.scheduler, self.metrics = engine, settings, scheduler, metrics
        self.started = int(time.time())
        self._known: WeakKeyDictionary[Engine, list[dict[str, Any]]] = WeakKeyDictionary()
        self.log = None if settings.log_prompts is None else PromptLog(settings.log_prompts)

    def engine_of(self, name: str) -> Engine:
        """What answers to this name: the model's engine, or an adapter's.

        Raises:
            ApiError: nothing does.
        """
        if name == self.settings.model:
            return self.engine
        found = self.engine.adapters.get(name)
        if found is None:
            served = [self.settings.model, *self.engine.adapters]
            shown = f"only {served[0]!r}" if len(served) == 1 else f"only {', '.join(map(repr, served[:20]))}"
            message = f"there is no model {name[:100]!r} here, {shown}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return found

    def check_pictures(self, messages: Sequence[Mapping[str, Any]] | None) -> None:
        """Raises ApiError where messages hold more pictures than are taken, or more videos."""
        contents = [message.get("content") for message in messages or ()]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        kinds = [part.get("type") for part in parts if isinstance(part, dict)]
        for kind, what, most in (
            ("image_url", "pictures", self.settings.max_images),
            ("video_url", "videos", self.settings.max_videos),
        ):
            if (count := kinds.count(kind)) > most:
                raise ApiError(400, f"the messages hold {count} {what}, at most {most} are taken", param="messages")

    def known_tools(self, engine: Engine) -> list[dict[str, Any]]:
        """Declarations of the calls that a model knows by heart."""
        if engine not in self._known:
            self._known[engine] = list(engine.info.defaults.get("tools") or ())
        return self._known[engine]

    def undeclared(self, body: ChatRequest, known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Options of a request without tools: no call that nobody has declared, unless the operator or the request
        itself asks for those that the model knows by heart.

        Args:
            body: of the request.
            known: their declarations.

        Raises:
            ApiError: a call is required and there is none to choose from.
        """
        asked = None if body.diffusion is None else body.diffusion.known_tools
        if asked and not known:
            raise ApiError(400, "this model knows no calls by heart", param="diffusion.known_tools")
        used = self.settings.known_tools if asked is None else asked
        if not known or used:
            return {}
        if body.tool_choice not in (None, "auto", "none"):
            raise ApiError(400, f"tool_choice={body.tool_choice!r} needs tools", param="tool_choice")
        return {"tool_choice": "none"}

    def deadline(self) -> float:
        """Of a request that comes now, by `time.monotonic`."""
        return time.monotonic() + self.settings.request_timeout_s

    async def prepared(self, request: Request, work: Callable[[], T], deadline: float, *, slow: bool = False) -> T:
        """What this work makes of a request.

        Raises:
            ApiError: it was not there by the deadline, or the server ends.
        """
        slow = slow or len(await request.body()) > _LARGE_BYTES
        return await self.scheduler.preparation.run(work, slow=slow, deadline=deadline)

    async def flight(
        self,
        request: Request,
        request_id: str,
        body: Sampling | InfillRequest,
        prepares: Sequence[Callable[[], Prepared]],
        *,
        drafts: bool,
        steered: bool,
    ) -> Flight:
        """Takes places, prepares and submits; all of it within the time that a request has.

        Raises:
            ApiError: no place, or no time.
            InputError: a request that cannot work.
        """
        deadline = self.deadline()
        self.scheduler.reserve(len(prepares))
        done = None if self.log is None else partial(self.log.reply, request_id)
        flight = Flight(self.scheduler, body.model, len(prepares), done)
        request.state.model, request.state.tokens = body.model, flight.tokens
        try:
            prepared = [await self.prepared(request, prepare, deadline, slow=steered) for prepare in prepares]
            for one in prepared:
                self.scheduler.check_memory(one)
            if self.log is not None:
                self.log.request(request_id, body)
            flight.submit(prepared, drafts, deadline)
        except BaseException:
            flight.close()
            raise
        return flight


class Flight:
    """Jobs of one request. Whatever happens to it, `close` ends what has not ended and gives the places back."""

    def __init__(
        self, scheduler: Scheduler, model: str, count: int, on_done: Callable[[int, Generation], None] | None = None
    ) -> None:
        """`model` is the name that was asked for."""
        self.inbox, self.jobs, self.count = Inbox(), list[Job](), count
        self.done: dict[int, Generation] = {}
        self._scheduler, self._model, self._open, self._on_done = scheduler, model, True, on_done

    def submit(self, prepared: Sequence[Prepared], drafts: bool, deadline: float) -> None:
        """Queues the jobs."""
        for number, one in enumerate(prepared):
            job = Job(one, partial(self.inbox.put, number), drafts, deadline, self._model)
            self.jobs.append(job)
            self._scheduler.submit(job)

    def tokens(self) -> tuple[int | str, int | str]:
        """(of the prompt, generated) so far."""
        if not self.jobs:
            return "-", "-"
        generated = sum(generation.stats.generated_tokens for generation in self.done.values())
        return self.jobs[0].prepared.prompt_tokens, generated

    def check(self, number: int, generation: Generation) -> None:
        """Takes note of a result.

        Raises:
            ApiError: it is none.
        """
        self.done[number] = generation
        if self._on_done is not None:
            self._on_done(number, generation)
        check_end(self.jobs[number], generation)

    async def results(self, request: Request) -> list[Generation]:
        """All of them, in the order of the choices; the flight ends with them.

        Raises:
            ApiError: one of them failed, or the client hung up.
        """
        client = Client(request)
        try:
            while len(self.done) < self.count:
                number, result = await client.unless_gone(self.inbox.get())
                if isinstance(result, Generation):
                    self.check(number, result)
        finally:
            client.close()
            self.close()
        return [self.done[number] for number in range(self.count)]

    def close(self) -> None:
        """Ends it, once."""
        if not self._open:
            return
        self._open = False
        for number, job in enumerate(self.jobs):
            if number not in self.done:
                self._scheduler.cancel(job)
        self._scheduler.release(self.count)


class FlightResponse(StreamingResponse):
    """A stream of server-sent events that ends its flight, also where the client never reads a byte."""

    def __init__(self, flight: Flight, content: Any) -> None:
        super().__init__(content, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._flight = flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._flight.close()


class Client:
    """Who waits for an answer, until `close`."""

    def __init__(self, request: Request) -> None:
        self._gone = asyncio.ensure_future(_gone(request))

    async def unless_gone(self, awaited: Coroutine[Any, Any, T]) -> T:
        """What is awaited.

        Raises:
            ApiError: the client hung up meanwhile.
        """
        task = asyncio.ensure_future(awaited)
        try:
            await asyncio.wait({task, self._gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ApiError(499, "the client hung up")
            return task.result()
        finally:
            task.cancel()

    def close(self) -> None:
        """Nobody waits any more."""
        self._gone.cancel()


def check_end(job: Job, event: Final) -> None:
    """Raises ApiError unless a job has ended as it should."""
    if job.late:
        raise ApiError(504, "the request took longer than the server allows", code="timeout")
    if event.finish_reason == "error":
        raise ApiError(500, f"generation failed: {event.error}", code="generation_failed")
    if event.finish_reason == "cancelled":
        raise ApiError(503, "the server is shutting down", code="shutting_down")


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
