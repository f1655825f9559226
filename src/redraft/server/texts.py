"""`POST /v1/infill` and `POST /v1/tokenize`."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from fastapi import APIRouter, Request

from redraft.server.choices import extras_of, options_of, usage_of
from redraft.server.errors import ApiError
from redraft.server.flight import Server
from redraft.server.schema import InfillRequest, TokenizeRequest


def routes(server: Server) -> APIRouter:
    """The routes, on this server."""
    router = APIRouter(prefix="/v1")

    @router.post("/infill", summary="A text whose holes [[...]] are filled, or a span of which is written anew")
    async def infill(request: Request, body: InfillRequest) -> Any:
        engine = server.engine_of(body.model)
        server.check_pictures(body.messages)
        options = options_of(body)
        if body.diffusion is not None and body.diffusion.known_tools is not None:
            raise ApiError(400, "calls belong to chat completions", param="diffusion.known_tools")
        if body.diffusion is not None and body.diffusion.drafts:
            raise ApiError(400, "drafts belong to streams, and an infill is none", param="diffusion.drafts")
        if body.span is None:
            if body.instruction is not None:
                raise ApiError(400, "instruction belongs to a span", param="instruction")
            prepare = partial(engine.prepare_infill, body.text, body.messages, **options)
        else:
            if body.messages is not None:
                raise ApiError(400, "messages belong to holes; a span has an instruction", param="messages")
            instruction = body.instruction or "Write this part anew."
            prepare = partial(engine.prepare_edit, body.text, body.span, instruction, **options)
        request_id = f"infill-{secrets.token_hex(12)}"
        flight = await server.flight(request, request_id, body, [prepare], drafts=False, steered=True)
        done = await flight.results(request)
        return {
            "id": request_id,
            "object": "infill",
            "model": body.model,
            "text": done[0].raw,
            "filled": list(done[0].filled),
            "usage": usage_of(done),
            "redraft": [extras_of(done[0])],
        }

    @router.post("/tokenize", summary="The token ids of a text or a conversation")
    async def tokenize(request: Request, body: TokenizeRequest) -> Any:
        engine = server.engine_of(body.model)
        server.check_pictures(body.messages)
        if (body.text is None) == (body.messages is None):
            raise ApiError(400, "give either text or messages", param="text")
        work = partial(engine.tokenize, body.messages or []) if body.text is None else partial(engine.encode, body.text)
        ids = await server.prepared(request, work, server.deadline())
        return {"object": "tokens", "model": body.model, "tokens": ids, "count": len(ids)}

    return router
