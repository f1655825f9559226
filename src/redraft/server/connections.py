"""Connections of strangers: whoever sends nothing, or too slowly, makes room for who does."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from redraft.server.errors import ApiError
from redraft.server.settings import Settings

# Connections of one address that have never sent a head.
OF_ONE_ADDRESS = 64
# More connections than this would only take memory: each has a parser and buffers.
_MOST_OPEN = 8192
# Descriptors for files that are opened later: pages, a template's process, a kernel's build.
_OTHERS = 32
# A reader that takes nothing for so long, with all buffers full, has gone.
_STALLED_S = 60.0


class Lobby:
    """Who is connected, and who of them has nothing under way here."""

    def __init__(self, settings: Settings, descriptors: int) -> None:
        """`descriptors`: files that the process may open yet."""
        self.settings = settings
        # So many are accepted in one turn of the loop, and each is seen here two turns later.
        self.backlog = max(1, min(256, descriptors // 8))
        self._most = max(1, min(_MOST_OPEN, descriptors - 3 * self.backlog - _OTHERS))
        self._open: set[Connection] = set()
        # In the order in which they began to wait.
        self._strangers: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._of_address: dict[str, dict[Connection, None]] = {}

    def enter(self, connection: Connection) -> None:
        """Someone has connected; who has waited longest may have to go for it."""
        self._open.add(connection)
        self.wait(connection)
        address = self._of_address[connection.address]
        if len(address) > OF_ONE_ADDRESS:
            self._turn_out(next(iter(address)))
        elif len(self._open) > self._most:
            self._turn_out(next(iter(self._strangers or self._idle)))

    def wait(self, connection: Connection) -> None:
        """A connection has nothing under way here."""
        if connection not in self._open:
            return
        if connection.is_stranger:
            self._strangers.setdefault(connection)
            self._of_address.setdefault(connection.address, {}).setdefault(connection)
        else:
            self._idle.setdefault(connection)

    def work(self, connection: Connection) -> None:
        """A request of it is under way."""
        self._idle.pop(connection, None)
        self._strangers.pop(connection, None)
        address = self._of_address.get(connection.address, {})
        address.pop(connection, None)
        if not address:
            self._of_address.pop(connection.address, None)

    def leave(self, connection: Connection) -> None:
        """It has gone."""
        self.work(connection)
        self._open.discard(connection)

    def _turn_out(self, connection: Connection) -> None:
        self.leave(connection)
        # Its descriptor is free with the next turn of the loop, unless it would be waited for a reader first.
        if connection.transport.get_write_buffer_size():
            connection.transport.abort()
        else:
            connection.transport.close()


class Connection(H11Protocol):
    """uvicorn's, with an end to each wait: for a head, for a body, for a next request, for a reader."""

    def __init__(self, *arguments: Any, lobby: Lobby, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.address, self.is_stranger = "", True
        self._lobby = lobby
        self._waits_for: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's."""
        super().connection_made(transport)
        self.address = _network(self.client)
        self._lobby.enter(self)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._lobby.leave(self)
        self._end(self._deadline)
        self._end(self._stalled)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """As uvicorn's."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """As uvicorn's; the buffer is full."""
        super().pause_writing()
        self._lobby.wait(self)
        self._stalled = self.loop.call_later(_STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """As uvicorn's."""
        super().resume_writing()
        self._end(self._stalled)
        self._waits_for = None
        self._look()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refuse(ApiError(400, msg))

    def _look(self) -> None:
        """Sees what is waited for now, and until when."""
        if self.transport.is_closing():
            return
        waits_for = self._wanted()
        if waits_for == self._waits_for:
            return
        self._waits_for = waits_for
        self._end(self._deadline)
        if waits_for in ("body", "reply"):
            self.is_stranger = False
            self._lobby.work(self)
        else:
            self._lobby.wait(self)
        settings = self._lobby.settings
        seconds = {"head": settings.head_s, "body": settings.body_s, "rest": settings.body_s}.get(waits_for)
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._late)

    def _wanted(self) -> str:
        """A "head"; its "body"; the "rest" of a body after the answer; our own "reply"; or the "next" request's first
        byte, which uvicorn times."""
        if self.conn.their_state is h11.SEND_BODY:
            return "rest" if self.cycle.response_complete else "body"
        if self.conn.their_state is not h11.IDLE:
            return "reply"
        return "next" if self.cycle is not None and not self.conn.trailing_data[0] else "head"

    def _late(self) -> None:
        if self._waits_for == "body" or self.conn.trailing_data[0]:
            seconds = self._lobby.settings.body_s if self._waits_for == "body" else self._lobby.settings.head_s
            message = f"the {self._waits_for} of the request was not there after {seconds:g} s"
            self._refuse(ApiError(408, message, code="request_timeout"))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Answers without the application, and hangs up."""
        body = json.dumps(error.body).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever reads the body learns that no more of it comes.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            reason = STATUS_PHRASES[error.status]
            head = h11.Response(status_code=error.status, headers=headers, reason=reason)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @staticmethod
    def _end(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open files to the hard one; how many this process may have open from now on."""
    if sys.platform == "win32":
        return _MOST_OPEN
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4 * _MOST_OPEN
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


def open_descriptors() -> int:
    """Files that this process has open."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 64


def _network(client: tuple[str, int] | None) -> str:
    """What counts as one address: of IPv6, what one customer is given."""
    if client is None:
        return ""
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return client[0]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
