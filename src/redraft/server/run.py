"""Runs the application until it is told to stop, and lets what runs finish first."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import NoReturn

import uvicorn

from redraft.core.engine import Engine
from redraft.core.errors import OptionError
from redraft.server.app import create_app
from redraft.server.connections import Connection, Lobby, open_descriptors, raise_descriptor_limit
from redraft.server.introduction import Introduction
from redraft.server.log import log_to_stderr
from redraft.server.scheduler import Scheduler
from redraft.server.settings import Settings

# For answers that are on their way when all is over.
LAST_WORDS_S = 2


def run(engine: Engine, settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; a second one ends at once.

    Raises:
        OptionError: the address cannot be listened on.
        CheckpointError: the model's directory introduces it in a way that nobody can read.
    """
    settings = settings.for_model(sees=engine.info.sees)
    # Now, and not at the first look at the page.
    for served in (engine, *engine.adapters.values()):
        Introduction.of(served.info)
    log_to_stderr()
    app = create_app(engine, settings)
    lobby = Lobby(settings, raise_descriptor_limit() - open_descriptors())
    bound = listening(settings, lobby.backlog)
    config = uvicorn.Config(
        app, http=partial(Connection, lobby=lobby), ws="none", lifespan="on",  # type: ignore[arg-type]
        log_config=None, log_level="error", access_log=False, server_header=False, date_header=False,
        backlog=lobby.backlog, timeout_keep_alive=settings.idle_s,  # type: ignore[arg-type]
        timeout_graceful_shutdown=LAST_WORDS_S,
    )  # fmt: skip
    port = bound.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    fragment = f"#key={settings.api_key}" if settings.print_key and settings.api_key else ""
    announce(f"{settings.model}: http://{host}:{port}/{fragment}  (OpenAI's API under /v1)")
    scheduler = app.state.scheduler
    status = 0
    try:
        _Server(config, scheduler, settings.drain_s).run(sockets=[bound])
    except KeyboardInterrupt:
        status = 130
        raise
    finally:
        if scheduler.hangs:
            # The interpreter would wait for that thread.
            _leave(status)


def listening(settings: Settings, backlog: int = 256) -> socket.socket:
    """A socket that listens where the settings say.

    Raises:
        OptionError: it cannot.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio turns Nagle off only where the protocol is said.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
        # From here on nobody is turned away, though the answer may take the moment until all is up.
        bound.listen(backlog)
    except OSError as error:
        bound.close()
        raise OptionError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    return bound


def _leave(status: int) -> NoReturn:
    """Ends the process, whatever still runs in it."""
    logging.shutdown()
    os._exit(status)


class _Server(uvicorn.Server):
    """uvicorn closes its door at the first signal; this one says 503 there until the last reply is out."""

    def __init__(self, config: uvicorn.Config, scheduler: Scheduler, drain_s: float) -> None:
        super().__init__(config)
        self._scheduler, self._drain_s = scheduler, drain_s
        self._draining: asyncio.Task[None] | None = None
        self._events: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        self._events = asyncio.get_running_loop()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        """Waits for the end; uvicorn's own looks ten times a second."""
        await self._ended.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal."""
        if self._events is None or self._scheduler.draining:
            self._end(sig, frame)
            return
        self._scheduler.draining = True
        # Should even the event loop hang.
        last = threading.Timer(self._drain_s + 5 * LAST_WORDS_S, _leave, (1,))
        last.daemon = True
        last.start()
        self._events.call_soon_threadsafe(self._begin, sig, frame)

    def _begin(self, sig: int, frame: FrameType | None) -> None:
        async def drain() -> None:
            await self._scheduler.drain(self._drain_s)
            self._end(sig, frame)

        self._draining = asyncio.get_running_loop().create_task(drain())

    def _end(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._events is not None:
            self._events.call_soon_threadsafe(self._scheduler.give_up)
            self._events.call_soon_threadsafe(self._ended.set)
