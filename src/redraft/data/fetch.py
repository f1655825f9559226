"""One file over HTTP: bounded, resumed where it was cut off, tried again a few times."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from redraft.core.errors import FetchError

# Between tries. Whoever runs the command again goes on where the last one stopped.
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
TIMEOUT_S = 30.0
_MOST_REDIRECTS = 5
_CHUNK_BYTES = 64 * 1024
# What another try would meet again.
_FINAL = (socket.gaierror, ssl.SSLCertVerificationError, ConnectionRefusedError)


def fetch(url: str, path: Path, most_bytes: int) -> None:
    """Fetches a file; what an earlier try has left beside it, as `.part`, is gone on with.

    Args:
        url: where it lies. From HTTPS nothing leads to HTTP.
        path: where it goes, once it is whole.
        most_bytes: what has more is refused, and nothing of it kept.

    Raises:
        FetchError: it cannot be had.
    """
    part = _Part(path)
    for pause_s in (*PAUSES_S, None):
        try:
            _receive(url, part, most_bytes)
            break
        except (OSError, http.client.HTTPException) as error:
            if pause_s is None or not _passes(error):
                raise FetchError(f"{url} cannot be fetched: {_reason(error)}") from None
            time.sleep(pause_s)
    part.finish(path)


class _Part:
    """What has arrived of a file, and the mark by which its server knows whether it is still the same."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.part")
        self._mark = path.with_name(f"{path.name}.etag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def mark(self) -> str:
        return self._mark.read_text(encoding="ascii") if self._mark.exists() else ""

    def begin(self, mark: str) -> None:
        self.remove()
        # A weak mark promises the same sense, not the same bytes.
        if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', mark):
            self._mark.write_text(mark, encoding="ascii")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        self.path.replace(path)
        self._mark.unlink(missing_ok=True)


class _BrokenOff(OSError):
    pass


def _receive(url: str, part: _Part, most_bytes: int) -> None:
    """One try: the rest of the file, or all of it where nothing can be gone on with."""
    headers = {"User-Agent": "redraft", "Accept-Encoding": "identity"}
    if part.size and part.mark:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.mark}
    try:
        response = _opened(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.remove()
        raise
    with response:
        if (packing := response.headers.get("Content-Encoding", "identity")) != "identity":
            raise FetchError(f"{url} comes packed as {packing!r:.40}, which nobody asked for")
        if response.status != 206:
            part.begin(response.headers.get("ETag", ""))
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
            part.remove()
            raise _BrokenOff("the server went on at another place than it was asked to")
        _append(response, part, most_bytes, url)


def _append(response: Any, part: _Part, most_bytes: int, url: str) -> None:
    size, missing = part.size, response.length or 0
    with part.path.open("ab") as file:
        while size + max(missing, 0) <= most_bytes and (chunk := response.read1(_CHUNK_BYTES)):
            file.write(chunk)
            size += len(chunk)
            missing -= len(chunk)
    if size + max(missing, 0) > most_bytes:
        part.remove()
        raise FetchError(f"{url} is not what was published: it has more than {most_bytes} bytes")
    if missing > 0:
        raise _BrokenOff(f"the connection ended {missing} bytes early")


def _opened(url: str, headers: dict[str, str]) -> Any:
    """The response, wherever it is led to. urllib's own way there would read any body on it whole."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    at = url
    for _ in range(_MOST_REDIRECTS):
        try:
            return opener.open(urllib.request.Request(at, headers=headers), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            error.close()
            to = urljoin(at, error.headers.get("Location", ""))
            if error.code not in (301, 302, 303, 307, 308):
                raise
            if urlsplit(to).scheme not in ("https", urlsplit(url).scheme):
                raise FetchError(f"{url} leads to {to!r:.200}, which is not fetched") from None
            at = to
    raise FetchError(f"{url} leads from one place to the next")


def _passes(error: Exception) -> bool:
    """Whether another try may fare better."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 416, 429) or error.code >= 500
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return not isinstance(reason, _FINAL)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
