"""A real server process, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KEY = "test-key"
REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]
_WITH_SETTINGS = """
import json, sys
import redraft
from redraft.server.run import run
from redraft.server.settings import Settings

descriptors, settings, model, before = json.loads(sys.argv[1])
if descriptors:
    import resource
    soft, hard = descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard or resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
engine = redraft.load(model, dtype="float32", threads=1)
exec(before)
run(engine, Settings(**settings), announce=lambda text: print(text, file=sys.stderr, flush=True))
"""


class Served(subprocess.Popen[str]):
    """A process that serves; `said` is what it has written to stderr so far, line by line."""

    def __init__(self, command: list[str], **more: Any) -> None:
        super().__init__(command, stderr=subprocess.PIPE, text=True, start_new_session=True, **more)
        self.said: list[str] = []
        # A server whose log nobody reads would wait for a reader.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def port(self) -> int:
        """Where it listens, as soon as it says so."""
        wait_until(lambda: self._found() or not self._reader.is_alive(), 60)
        found = self._found()
        assert found, self.said
        return int(found[1])

    def _found(self) -> re.Match[str] | None:
        return re.search(r"http://\S+?:(\d+)/", "".join(self.said))

    def _read(self) -> None:
        assert self.stderr is not None
        self.said.extend(self.stderr)

    def end(self) -> None:
        """Ends it and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        self._reader.join()
        assert self.stderr is not None
        self.stderr.close()


@contextmanager
def serving(*arguments: str, port: int = 0, known_tools: bool = True) -> Iterator[tuple[Served, int]]:
    """(process, port) of `redraft serve` with mini, which uses the calls it knows by heart as the engine does."""
    own = ["--known-tools"] if known_tools else []
    command = [*REDRAFT, "serve", "--port", str(port), "--api-key", KEY, "--dtype", "float32", *own, *arguments]
    with _ready(Served(command)) as served:
        yield served


@contextmanager
def serving_with(
    before: str = "", *, served: str = "mini", descriptors: tuple[int, int | None] | None = None, **settings
) -> Iterator[tuple[Served, int]]:
    """(process, port) of a server with these settings.

    Args:
        before: Python that does something to `engine` first.
        served: the model.
        descriptors: that the process may have, and up to how many it may raise that; None is as here.
        settings: of the server.
    """
    arguments = json.dumps([descriptors, {"port": 0, "api_key": KEY, **settings}, served, before])
    with _ready(Served([sys.executable, "-c", _WITH_SETTINGS, arguments])) as served:
        yield served


@contextmanager
def _ready(process: Served) -> Iterator[tuple[Served, int]]:
    try:
        port = process.port()
        wait_until(lambda: ask(port, "GET", "/ready", key=None)[0] == 200)
        yield process, port
    finally:
        process.end()


def wait_until(holds, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("it never came true")


def ask(port: int, method: str, path: str, body=None, *, key: str | None = KEY, headers=None, timeout: float = 60):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    own = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, own | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
