"""`GET /v1/models` and `/v1/tools`: what is served, and what a page can say of it before anyone has asked anything."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter

from redraft.core.presets import PRESETS
from redraft.server.flight import Server
from redraft.server.introduction import Introduction


def routes(server: Server) -> APIRouter:
    """The routes, on this server."""
    router = APIRouter(prefix="/v1")

    @cache
    def described() -> dict[str, Any]:
        return _described(server)

    @router.get("/models", summary="The model that is served")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @router.get("/models/{name:path}", summary="One model")
    async def model(name: str) -> dict[str, Any]:
        server.check_model(name)
        return described()

    @router.get("/tools", summary="The calls that the model knows by heart; see `diffusion.known_tools`")
    async def tools() -> dict[str, Any]:
        return {"object": "list", "data": server.known_tools, "used": server.settings.known_tools}

    return router


def _described(server: Server) -> dict[str, Any]:
    info = server.engine.info
    introduction = Introduction.of(info)
    return {
        "id": server.settings.model,
        "object": "model",
        "created": server.started,
        "owned_by": "redraft",
        "max_model_len": info.max_context,
        "redraft": {
            "parameters": info.parameters,
            "canvas_length": info.canvas_length,
            "device": info.device,
            "dtype": info.dtype,
            "quantization": info.quantization,
            "has_tokenizer": info.has_tokenizer,
            "has_chat_template": info.has_chat_template,
            "sees": info.sees,
            "max_images": server.settings.max_images if info.sees else 0,
            "about": introduction.about,
            "examples": list(introduction.examples),
            "infill": introduction.infill and dict(zip(("text", "request"), introduction.infill, strict=True)),
            "presets": list(PRESETS),
            "end_tokens": sorted(set(server.engine.pieces(info.end_ids))),
            "writes_prompts_down": server.log is not None,
            "defaults": {name: value for name, value in info.defaults.items() if name != "tools"},
            **({"known_tools": server.known_tools} if server.settings.known_tools else {}),
        },
    }
