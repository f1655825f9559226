"""`GET /v1/models` and `/v1/tools`: what is served, and what a page can say of it before anyone has asked anything."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from redraft.core.engine import Engine
from redraft.core.presets import PRESETS
from redraft.server.flight import Server
from redraft.server.introduction import Introduction


def routes(server: Server) -> APIRouter:
    """The routes, on this server."""
    router = APIRouter(prefix="/v1")

    @router.get("/models", summary="The model that is served, and the adapters beside it")
    async def models() -> dict[str, Any]:
        loaded = [described(server, name, engine) for name, engine in list(server.engine.adapters.items())]
        return {"object": "list", "data": [described(server, server.settings.model, server.engine), *loaded]}

    @router.get("/models/{name:path}", summary="One model")
    async def model(name: str) -> dict[str, Any]:
        return described(server, name, server.engine_of(name))

    @router.get("/tools", summary="The calls that the model knows by heart; see `diffusion.known_tools`")
    async def tools() -> dict[str, Any]:
        return {"object": "list", "data": server.known_tools(server.engine), "used": server.settings.known_tools}

    return router


def described(server: Server, name: str, engine: Engine) -> dict[str, Any]:
    """What is told of a model, or of an adapter, whose `parent` is the model."""
    info = engine.info
    introduction = Introduction.of(info)
    return {
        "id": name,
        "object": "model",
        "created": server.started,
        "owned_by": "redraft",
        "max_model_len": info.max_context,
        **({} if info.adapter is None or engine is server.engine else {"parent": server.settings.model}),
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
            "end_tokens": sorted(set(engine.pieces(info.end_ids))),
            "writes_prompts_down": server.log is not None,
            "defaults": {name: value for name, value in info.defaults.items() if name != "tools"},
            **({"known_tools": server.known_tools(engine)} if server.settings.known_tools else {}),
        },
    }
