"""A real `redraft serve` process, and requests to it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

KEY = "test-key"
REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]


@contextmanager
def serving(*arguments: str, port: int = 0, known_tools: bool = True) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """(process, port) of a server of mini, which uses the calls it knows by heart as the engine does."""
    own = ["--known-tools"] if known_tools else []
    command = [*REDRAFT, "serve", "--port", str(port), "--api-key", KEY, "--dtype", "float32", *own, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = next((line for line in process.stderr if "http://" in line), "")
        found = re.search(r":(\d+)/#key=", line)
        assert found, line
        bound = int(found[1])
        wait_until(lambda: ask(bound, "GET", "/ready", key=None)[0] == 200)
        yield process, bound
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


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
