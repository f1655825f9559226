"""A line for each request: who asked for what, how it ended, what it cost. Never what was said."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("redraft.requests")
_LONGEST_PATH = 100
# Lines that wait for whoever reads stderr.
_WAITING = 1000


def log_to_stderr() -> None:
    """Writes this process's log to stderr on a thread of its own: a reader who does not read loses lines, and holds
    nobody up."""
    handler = _Dropping()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().addHandler(handler)
    _log.setLevel(logging.INFO)


class _Dropping(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(_WAITING)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(self.format(record) + "\n")

    def close(self) -> None:
        """Waits for the last lines, a moment."""
        end = time.monotonic() + 0.5
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
        super().close()

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            with contextlib.suppress(OSError, ValueError):
                # Not through sys.stderr, whose lock everyone else would wait for.
                os.write(2, line.encode(errors="replace"))
            self._lines.task_done()


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
