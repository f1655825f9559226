"""A line for each request: who asked for what, how it ended, what it cost. Never what was said."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redraft.server.log import REQUESTS

_log = logging.getLogger(REQUESTS)
_LONGEST_PATH = 100


class RequestLog:
    """ASGI middleware around the doors, so that who is turned away has a line as well."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            _log.info("%s", _line(scope, status, time.perf_counter() - began))


def _line(scope: Scope, status: int, seconds: float) -> str:
    state = scope.get("state", {})
    tokens = state.get("tokens")
    prompt, generated = tokens() if tokens else ("-", "-")
    fields = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "method": scope["method"],
        "route": _route(scope),
        "model": state.get("model", "-"),
        "key": state.get("key", "-"),
        "status": status,
        "prompt_tokens": prompt,
        "generated_tokens": generated,
        "seconds": f"{seconds:.3f}",
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def _route(scope: Scope) -> str:
    """As it was declared; a path that no route has is what someone typed."""
    route = getattr(scope.get("route"), "path", None)
    return route or json.dumps(scope["path"][:_LONGEST_PATH]).replace(" ", "\\u0020")
