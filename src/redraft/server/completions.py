"""`POST /v1/completions`: text goes on as it stands, without a chat template."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from redraft.core.engine import Prepared
from redraft.core.events import Commit
from redraft.core.frames import Frames
from redraft.core.results import Generation
from redraft.server.choices import extras_of, finish_reason, options_of, usage_of
from redraft.server.errors import ApiError
from redraft.server.flight import FlightResponse, Server
from redraft.server.schema import MAX_CHOICES, CompletionRequest
from redraft.server.streams import events


def routes(server: Server) -> APIRouter:
    """The route, on this server."""
    router = APIRouter(prefix="/v1")

    @router.post("/completions", summary="A text that goes on")
    async def completions(request: Request, body: CompletionRequest) -> Any:
        engine = server.engine_of(body.model)
        prompts, count = _prompts(body), body.n or 1
        if body.diffusion is not None and body.diffusion.known_tools is not None:
            raise ApiError(400, "calls belong to chat completions", param="diffusion.known_tools")
        if body.best_of not in (None, count):
            raise ApiError(400, "best_of must equal n: nothing is left out here", param="best_of")
        if len(prompts) * count > MAX_CHOICES:
            raise ApiError(400, f"prompts times n must be at most {MAX_CHOICES}", param="n")
        options = options_of(body)
        if body.logprobs is not None:
            options["logprobs"] = True

        def prepare(prompt: str | list[int], seed: int | None) -> Prepared:
            ids = prompt
            if isinstance(prompt, str):
                ids = engine.encode(prompt, engine.info.max_context)
            own: dict[str, Any] = {"tools": None, "skip_special_tokens": True, **options} | (
                {} if seed is None else {"seed": seed}
            )
            return engine.prepare(ids, **own)

        wanted = [(prompt, number) for prompt in prompts for number in range(count)]
        prepares = [
            partial(prepare, prompt, None if body.seed is None else body.seed + number) for prompt, number in wanted
        ]
        drafts = body.diffusion is not None and body.diffusion.drafts
        request_id = f"cmpl-{secrets.token_hex(12)}"
        flight = await server.flight(request, request_id, body, prepares, drafts=drafts, steered=False)
        envelope = {
            "id": request_id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }
        before = [_echoed(server, prompt) if body.echo else "" for prompt, _ in wanted]
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            make = partial(Frames, server.engine.pieces)
            return FlightResponse(flight, events(flight, _Writer(before), envelope, make, usage))
        done = await flight.results(request)
        choices = [
            {
                "index": number,
                "text": before[number] + generation.text,
                "logprobs": _logprobs(server, generation),
                "finish_reason": finish_reason(generation),
            }
            for number, generation in enumerate(done)
        ]
        extras = [extras_of(generation) for generation in done]
        return {**envelope, "choices": choices, "usage": usage_of(done), "redraft": extras}

    return router


def _prompts(body: CompletionRequest) -> list[str | list[int]]:
    prompt: Any = body.prompt
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        prompt = [prompt]
    if not prompt or not all(prompt):
        raise ApiError(400, "the prompt is empty", param="prompt")
    return prompt


def _echoed(server: Server, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else "".join(server.engine.pieces(prompt))


def _logprobs(server: Server, generation: Generation) -> dict[str, Any] | None:
    if generation.logprobs is None:
        return None
    pieces = server.engine.pieces(generation.token_ids, skip_special_tokens=True)
    offsets = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    return {
        "tokens": pieces, "token_logprobs": list(generation.logprobs), "top_logprobs": None, "text_offset": offsets,
    }  # fmt: skip


class _Writer:
    def __init__(self, before: list[str]) -> None:
        self._before, self._sent = before, [0] * len(before)

    def first(self, number: int) -> list[dict[str, Any]]:
        return [{"text": self._before[number]}] if self._before[number] else []

    def commit(self, number: int, commit: Commit) -> list[dict[str, Any]]:
        self._sent[number] += len(commit.text)
        return [{"text": commit.text}] if commit.text else []

    def last(self, number: int, generation: Generation) -> list[dict[str, Any]]:
        return [{"text": generation.text[self._sent[number] :], "finish_reason": finish_reason(generation)}]
