"""`/v1/adapters`: adapters loaded and unloaded while requests run, from a directory that the operator has allowed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from redraft.core.adapters import adapter_name
from redraft.core.errors import InputError, ModelNotFoundError, OptionError
from redraft.server.errors import ApiError
from redraft.server.flight import Server
from redraft.server.introduction import Introduction
from redraft.server.models import described
from redraft.server.schema import AdapterRequest

# More than anyone needs, and fewer than would fill a log or a metrics page.
MOST = 64


def routes(server: Server) -> APIRouter:
    """The routes, on this server."""
    router = APIRouter(prefix="/v1")

    @router.post("/adapters", summary="Load an adapter from the directory that was allowed at the start")
    async def load(request: Request, body: AdapterRequest) -> dict[str, Any]:
        work = partial(_load, server, body.name, body.path or body.name)
        told = await server.prepared(request, work, server.deadline(), slow=True)
        request.state.model = body.name
        return told

    @router.delete("/adapters/{name:path}", summary="Unload an adapter; its requests under way end with it")
    async def unload(request: Request, name: str) -> dict[str, Any]:
        work = partial(_unload, server, name)
        told = await server.prepared(request, work, server.deadline(), slow=True)
        request.state.model = name
        return told

    return router


def _load(server: Server, name: str, path: str) -> dict[str, Any]:
    root, adapters = _allowed(server), server.engine.adapters
    try:
        adapter_name(name)
    except OptionError as error:
        raise ApiError(400, str(error), param="name", code="invalid_value") from None
    place = _inside(root, path)
    taken = ApiError(409, f"{name!r} is served already: give another name", param="name", code="name_taken")
    if name == server.settings.model or name in adapters:
        raise taken
    if len(adapters) >= MOST:
        raise ApiError(409, f"{MOST} adapters are loaded, more are not taken: unload one", code="too_many_adapters")
    try:
        engine = adapters.load(name, place)
        try:
            Introduction.of(engine.info)
        except InputError:
            adapters.unload(name)
            raise
    except InputError as error:
        if name in adapters:
            # Somebody else was faster.
            raise taken from None
        # A client learns nothing of where the directory lies.
        message = str(error).replace(f"{root}/", "")
        if isinstance(error, ModelNotFoundError):
            raise ApiError(404, message, param="path", code="adapter_not_found") from None
        raise ApiError(400, message, param="path", code="invalid_adapter") from None
    return described(server, name, engine)


def _unload(server: Server, name: str) -> dict[str, Any]:
    _allowed(server)
    if name == server.settings.model:
        raise ApiError(400, f"{name!r} is the model itself, which stays", param="name", code="not_an_adapter")
    try:
        server.engine.adapters.unload(name)
    except ModelNotFoundError as error:
        raise ApiError(404, str(error), param="name", code="model_not_found") from None
    return {"id": name, "object": "model", "deleted": True}


def _allowed(server: Server) -> Path:
    root = server.settings.allowed_adapters
    if root is None:
        message = "this server loads and unloads no adapters: start it with --allow-adapters DIR"
        raise ApiError(403, message, code="adapters_not_allowed")
    return root.resolve()


def _inside(root: Path, path: str) -> Path:
    """The place in the directory, links followed."""
    try:
        place = (root / path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise ApiError(400, f"{path[:100]!r} is no path", param="path", code="invalid_value") from None
    if not place.is_relative_to(root):
        message = f"{path[:100]!r} lies outside of the directory that adapters may come from"
        raise ApiError(403, message, param="path", code="path_not_allowed")
    return place
