"""A file server on the loopback that serves well, or as badly as it is told to."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

# How a request is answered, given what serves it and the file asked for.
Manner = Callable[["Handler", bytes], None]


@dataclass
class Shelf:
    """Attributes:
    files: contents by path.
    manners: how the next requests are answered, one each; all after them well.
    asked: path and headers of every request so far.
    """

    files: Mapping[str, bytes]
    manners: list[Manner] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""

    def ranges(self) -> list[str | None]:
        """The range that each request asked for."""
        return [headers.get("Range") for _, headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    shelf: Shelf

    def do_GET(self) -> None:
        self.shelf.asked.append((self.path, dict(self.headers)))
        manner = self.shelf.manners.pop(0) if self.shelf.manners else well
        content = self.shelf.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            manner(self, content)

    def begin(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def mark_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def well(handler: Handler, content: bytes) -> None:
    send(handler, content, len(content))


def cut_off(after: int) -> Manner:
    """What is asked for, but the connection ends after so many bytes of it."""
    return lambda handler, content: send(handler, content, after)


def send(handler: Handler, content: bytes, most: int) -> None:
    mark, start, status, headers = mark_of(content), 0, 200, {}
    if "Range" in handler.headers and handler.headers.get("If-Range") == mark:
        start, status = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-")), 206
        headers = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    handler.begin(status, len(content) - start, ETag=mark, **headers)
    handler.wfile.write(content[start : start + most])


def without_ranges(most: int | None = None) -> Manner:
    """The whole file whatever is asked, with a mark that would make one hope."""

    def manner(handler: Handler, content: bytes) -> None:
        handler.begin(200, len(content), ETag=mark_of(content))
        handler.wfile.write(content[:most])

    return manner


def stalled(after: int, seconds: float) -> Manner:
    """So many bytes, then nothing for a while."""

    def manner(handler: Handler, content: bytes) -> None:
        handler.begin(200, len(content), ETag=mark_of(content))
        handler.wfile.write(content[:after])
        time.sleep(seconds)

    return manner


def answering(status: int, length: int | None = 0, body: bytes = b"", **headers: str) -> Manner:
    """This answer, whatever is asked."""

    def manner(handler: Handler, content: bytes) -> None:
        handler.begin(status, length, **headers)
        handler.wfile.write(body)

    return manner


def endless(status: int = 200, **headers: str) -> Manner:
    """A body that goes on until nobody reads it."""

    def manner(handler: Handler, content: bytes) -> None:
        handler.begin(status, None, **headers)
        while True:
            handler.wfile.write(b"x" * 65536)

    return manner


@contextmanager
def serving(shelf: Shelf) -> Iterator[Shelf]:
    """The shelf, reachable at its `address`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"shelf": shelf}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    shelf.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield shelf
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
