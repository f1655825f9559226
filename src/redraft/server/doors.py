"""Who may come in: Host and Origin, the key, and how much a request may carry."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redraft.server.errors import ApiError
from redraft.server.settings import BODY_BYTES, Settings

MAX_HEADER_BYTES = 32 * 2**10
# What a page needs before it has read the key from its own address.
PUBLIC = ("/", "/health", "/ready")
STATIC = "/static/"
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Doors:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    out.setdefault(name, value)
                if origin in self.settings.allowed_origins:
                    out["access-control-allow-origin"] = str(origin)
                    out.add_vary_header("Origin")
            await send(message)

        try:
            self._check(scope, headers, origin)
            if scope["method"] == "OPTIONS" and origin in self.settings.allowed_origins:
                await _preflight(guarded)
                return
            await self.app(scope, self._limited(headers, receive), guarded)
        except ApiError as error:
            await error.response()(scope, receive, guarded)

    def _check(self, scope: Scope, headers: Headers, origin: str | None) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            raise ApiError(431, f"the headers have more than {MAX_HEADER_BYTES} bytes")
        host = headers.get("host", "")
        if not self.settings.is_host(_name(host)):
            raise ApiError(403, f"this server is not called {host!r}: allow the name with --allow-host", code="host")
        # Same origin: the page that this server has sent itself, whatever scheme a proxy gave it.
        if origin not in (None, *self.settings.allowed_origins) and _place(origin) != host:
            raise ApiError(403, f"pages of {origin!r} may not ask: allow them with --allow-origin", code="origin")
        if (coding := headers.get("content-encoding", "identity").lower()) != "identity":
            raise ApiError(415, f"the body is packed ({coding[:20]!r}): send it as it is", code="content_encoding")
        path = scope["path"]
        is_preflight = scope["method"] == "OPTIONS" and origin in self.settings.allowed_origins
        if path in PUBLIC or path.startswith(STATIC) or self.settings.api_key is None or is_preflight:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.settings.api_key.encode()):
            raise ApiError(
                401, "no API key, or a wrong one: send it as a bearer token", code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        scope.setdefault("state", {})["key"] = self.settings.key_id

    def _limited(self, headers: Headers, receive: Receive) -> Callable[[], Awaitable[Message]]:
        most = self.settings.max_body_bytes or BODY_BYTES
        error = ApiError(413, f"the body has more than {most} bytes", code="body_too_large")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > most:
            raise error
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise error
            return message

        return limited


def _place(origin: str) -> str:
    """Host and port of an origin."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
