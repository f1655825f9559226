"""`POST /v1/chat/completions`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from redraft.core.events import Commit
from redraft.core.frames import Frames
from redraft.core.results import Generation
from redraft.server.choices import (
    call_of,
    extras_of,
    finish_reason,
    logprobs_of,
    message_of,
    options_of,
    usage_of,
    without_calls,
)
from redraft.server.errors import ApiError
from redraft.server.flight import FlightResponse, Server
from redraft.server.schema import ChatRequest
from redraft.server.streams import events


def routes(server: Server) -> APIRouter:
    """The route, on this server."""
    router = APIRouter(prefix="/v1")

    @router.post("/chat/completions", summary="A reply to a conversation")
    async def chat_completions(request: Request, body: ChatRequest) -> Any:
        engine = server.engine_of(body.model)
        known = server.known_tools(engine)
        server.check_pictures(body.messages)
        options = options_of(body)
        calls = bool(body.tools)
        if calls and body.diffusion is not None and body.diffusion.known_tools is not None:
            raise ApiError(400, "give either tools or known_tools", param="diffusion.known_tools")
        if not calls:
            more = server.undeclared(body, known)
            calls = "tool_choice" not in more and bool(known)
            options = {name: value for name, value in options.items() if name != "tools"} | more
        count = body.n or 1
        prepares = [
            partial(engine.prepare, body.messages, **(options | _seed(body.seed, number))) for number in range(count)
        ]
        drafts = body.diffusion is not None and body.diffusion.drafts
        steered = body.response_format is not None or bool(body.tools)
        seen = (lambda generation: generation) if calls else without_calls
        request_id = f"chatcmpl-{secrets.token_hex(12)}"
        flight = await server.flight(request, request_id, body, prepares, drafts=drafts, steered=steered)
        envelope = {
            "id": request_id,
            "object": "chat.completion.chunk" if body.stream else "chat.completion",
            "created": int(time.time()),
            "model": body.model,
        }
        if body.stream:
            writer = _Writer(server, count, seen)
            usage = body.stream_options is not None and body.stream_options.include_usage
            make = partial(Frames, server.engine.pieces)
            return FlightResponse(flight, events(flight, writer, envelope, make, usage))
        done = await flight.results(request)
        return {
            **envelope,
            "choices": [_choice(server, number, seen(generation)) for number, generation in enumerate(done)],
            "usage": usage_of(done),
            "redraft": [extras_of(generation) for generation in done],
        }

    return router


def _seed(seed: int | None, number: int) -> dict[str, int]:
    return {} if seed is None else {"seed": seed + number}


def call_id() -> str:
    """An id for a tool call."""
    return f"call_{secrets.token_hex(12)}"


def _choice(server: Server, number: int, generation: Generation) -> dict[str, Any]:
    return {
        "index": number,
        "message": message_of(generation, [call_id() for _ in generation.tool_calls]),
        "logprobs": _logprobs(server, generation),
        "finish_reason": finish_reason(generation),
    }


def _logprobs(server: Server, generation: Generation) -> dict[str, Any] | None:
    if generation.logprobs is None:
        return None
    return logprobs_of(server.engine.pieces(generation.token_ids), generation.logprobs)


class _Writer:
    """Text as soon as it cannot become anything else; calls, which cannot be read before they are whole, at the end."""

    def __init__(self, server: Server, count: int, seen: Callable[[Generation], Generation]) -> None:
        self._server, self._seen = server, seen
        self._shown = [0] * count

    def first(self, number: int) -> list[dict[str, Any]]:
        return [{"delta": {"role": "assistant", "content": ""}}]

    def commit(self, number: int, commit: Commit) -> list[dict[str, Any]]:
        self._shown[number] += len(commit.shown)
        return [{"delta": {"content": commit.shown}}] if commit.shown else []

    def last(self, number: int, generation: Generation) -> list[dict[str, Any]]:
        generation = self._seen(generation)
        found: list[dict[str, Any]] = []
        if generation.reasoning is not None:
            found.append({"delta": {"reasoning_content": generation.reasoning}})
        if rest := generation.text[self._shown[number] :]:
            found.append({"delta": {"content": rest}})
        for place, call in enumerate(generation.tool_calls):
            found.append({"delta": {"tool_calls": [{"index": place, **call_of(call, call_id())}]}})
        logprobs = _logprobs(self._server, generation)
        return [*found, {"delta": {}, "logprobs": logprobs, "finish_reason": finish_reason(generation)}]
