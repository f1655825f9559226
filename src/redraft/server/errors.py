"""Errors become HTTP answers here and nowhere else, in OpenAI's form."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from redraft.core.errors import ContextLengthError, InputError, PromptError, SchemaError
from redraft.server.decision_schema import OPENAI, SYSTEM_ONE, DecisionsRequest, SystemOneRequest
from redraft.server.schema import AdapterRequest, ChatRequest, CompletionRequest, Diffusion, InfillRequest

_log = logging.getLogger(__name__)
# What the engine's options are called in a request, where that is something else.
_FIELDS = {
    "max_new_tokens": "max_tokens",
    "max_denoising_steps": "diffusion.steps",
    "initial_canvas": "prediction",
    "enable_thinking": "chat_template_kwargs.enable_thinking",
}
_BODIES = (ChatRequest, CompletionRequest, InfillRequest, DecisionsRequest, SystemOneRequest, AdapterRequest)
_KNOWN = {field for body in _BODIES for field in body.model_fields}
# Fields that hold fields.
_NESTED = ("diffusion", "stream_options", "chat_template_kwargs", "prediction", "decide", "prompt_cache_options")
# What the library names beside them.
_NOT_FIELDS = ("body", OPENAI, SYSTEM_ONE)
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        param: the field at fault.
        code: for programs.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})
        super().__init__(message)

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's form."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.body, self.status, self.headers)


def api_error(error: Exception, path: str = "") -> ApiError:
    """What a client is told of any error at this route."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), param=_prompt_field(path), code="context_length_exceeded")
    if isinstance(error, PromptError):
        return ApiError(400, str(error), param=_named(str(error)) or _prompt_field(path))
    if isinstance(error, SchemaError):
        return ApiError(400, str(error), param=error.option, code="invalid_schema")
    if isinstance(error, InputError):
        return ApiError(400, str(error), param=_named(str(error)))
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed at this request; its log says why", code="internal_error")


def install(app: FastAPI, on_error: Callable[[int], None]) -> None:
    """Makes an app answer errors so; `on_error` is told each status."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException) and error.status_code in (404, 405):
            error = _nowhere(request, error)
        told = api_error(error, request.url.path)
        on_error(told.status)
        return told.response()

    for kind in (ApiError, InputError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _nowhere(request: Request, error: HTTPException) -> ApiError:
    """What there is, for who asked for what there is not."""
    routes: dict[str, list[str]] = {}
    for path, operations in request.app.openapi()["paths"].items():
        routes.setdefault(path, []).extend(method.upper() for method in operations)
    path, method = request.url.path, request.method
    if error.status_code == 405 and path in routes:
        message = f"{path} takes {' and '.join(routes[path])}, not {method}"
        return ApiError(405, message, code="method_not_allowed", headers=error.headers)
    there = ", ".join(f"{' and '.join(methods)} {path}" for path, methods in routes.items() if path.startswith("/v1/"))
    return ApiError(error.status_code, f"there is no {method} {path[:100]} here; there is {there}", code="not_found")


def _named(message: str) -> str | None:
    """The request's field of an option; the errors of options begin with the option's name."""
    name = re.split("[ =:]", message, maxsplit=1)[0]
    if name in _FIELDS:
        return _FIELDS[name]
    if name in Diffusion.model_fields:
        return f"diffusion.{name}"
    return name if name.split(".")[0] in _KNOWN else None


def _prompt_field(path: str) -> str:
    return {"/v1/completions": "prompt", "/v1/infill": "text"}.get(path, "messages")


def _invalid(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in _NOT_FIELDS]
    # Behind a field of its own the library names the types that it has tried.
    path = ".".join(place[: 2 if place[:1] and place[0] in _NESTED else 1])
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"{path}: there is no such option", param=path, code="unknown_option")
    if first["type"] == "json_invalid":
        return ApiError(400, "the body is no JSON", code="invalid_json")
    reason = str(first["msg"]).removeprefix("Value error, ")
    field = path or _named(reason)
    return ApiError(400, f"{path}: {reason}" if path else reason, param=field, code="invalid_value")


def sse_error(error: ApiError) -> str:
    """The error as an event of a stream that has begun."""
    return f"data: {json.dumps(error.body)}\n\n"
