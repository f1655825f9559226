"""The socket that `redraft serve` listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

from redraft.core.errors import OptionError
from redraft.server.run import listening
from redraft.server.settings import Settings


def test_a_frame_leaves_when_it_is_written() -> None:
    """Nagle's algorithm would hold it back until the client has acknowledged the one before: 40 ms on Linux."""

    async def no_delay() -> int:
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken = writer.get_extra_info("socket")
            answered.set_result(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listening(Settings(port=0)) as bound:
            async with await asyncio.start_server(answer, sock=bound):
                _, writer = await asyncio.open_connection(*bound.getsockname())
                delay = await answered
                writer.close()
                return delay

    assert asyncio.run(no_delay())


def test_a_port_that_is_taken_is_named() -> None:
    with listening(Settings(port=0)) as bound:
        taken = bound.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {taken}"):
            listening(Settings(port=taken))
