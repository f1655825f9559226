"""Connections that nobody asks anything on: they hold a server up for nobody."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time

import pytest

from redraft.server.connections import OF_ONE_ADDRESS, raise_descriptor_limit
from servers import KEY, ask, serving_with

HALF_A_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half"
TOKENIZE = json.dumps({"model": "mini", "text": "play some jazz"}).encode()
SHORT = {"head_s": 1.0, "body_s": 1.5, "idle_s": 1.0}


@pytest.fixture(scope="module")
def short():
    with serving_with(**SHORT) as (_, port):
        yield port


def connected(port: int, address: str = "127.0.0.1", sent: bytes = b"") -> socket.socket:
    stranger = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))
    stranger.sendall(sent)
    return stranger


def head_of(length: int, key: str | None = KEY) -> bytes:
    lines = ["POST /v1/tokenize HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {length}"]
    lines += ["Content-Type: application/json"] + ([] if key is None else [f"Authorization: Bearer {key}"])
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_all(stranger: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := stranger.recv(65536):
            data += part
    return data


def is_closed(stranger: socket.socket) -> bool:
    """Whether the other side has hung up, an answer before that or not."""
    stranger.setblocking(False)
    try:
        while stranger.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


def served(port: int, address: str) -> tuple[int, float]:
    """(status, seconds) of a request on a new connection."""
    began = time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(address, 0))
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    client.request("POST", "/v1/tokenize", TOKENIZE, headers)
    status = client.getresponse().status
    client.close()
    return status, time.monotonic() - began


@pytest.mark.parametrize(
    "descriptors",
    [
        pytest.param((256, 256), id="few descriptors", marks=pytest.mark.full),
        pytest.param((1024, None), id="more for the asking"),
    ],
)
def test_two_thousand_idle_strangers_hold_up_nobody(descriptors):
    """From forty addresses, a third with half a head. The client has one of their addresses."""
    raise_descriptor_limit()
    addresses = [f"127.0.0.{number}" for number in range(1, 41)]
    strangers = []
    with serving_with(descriptors=descriptors, **SHORT | {"head_s": 30}) as (process, port):
        try:
            for number in range(2000):
                address = addresses[number % len(addresses)]
                strangers.append(connected(port, address, HALF_A_HEAD if number % 3 == 0 else b""))
                if number % 100 == 99:
                    status, seconds = served(port, "127.0.0.7")
                    assert status == 200
                    assert seconds < 5
            assert ask(port, "GET", "/ready", key=None)[0] == 200
            stand = sum(not is_closed(stranger) for stranger in strangers)
            # With room for all of them, fifty of an address may stand.
            assert stand == 2000 if descriptors[1] is None else stand < descriptors[1]
            assert not [line for line in process.said if "Traceback" in line or "out of system resource" in line]
        finally:
            for stranger in strangers:
                stranger.close()


def test_the_oldest_of_an_address_goes_for_a_newcomer():
    with serving_with(head_s=30) as (_, port):
        strangers = [connected(port, "127.0.0.9") for _ in range(OF_ONE_ADDRESS + 36)]
        elsewhere = connected(port, "127.0.0.10")
        assert served(port, "127.0.0.9")[0] == 200
        closed = [is_closed(stranger) for stranger in strangers]
        # The client was a newcomer too, until its head was there.
        assert closed == [True] * 37 + [False] * (OF_ONE_ADDRESS - 1)
        assert not is_closed(elsewhere)
        for stranger in (*strangers, elsewhere):
            stranger.close()


def test_a_head_that_does_not_come_ends_the_connection(short):
    began = time.monotonic()
    silent, half, slow = connected(short), connected(short, sent=HALF_A_HEAD), connected(short)
    with contextlib.suppress(OSError):
        for byte in HALF_A_HEAD[:12]:
            slow.sendall(bytes([byte]))
            time.sleep(0.15)
    for stranger, begun in ((silent, False), (half, True), (slow, True)):
        got = read_all(stranger)
        assert got.startswith(b"HTTP/1.1 408 ") if begun else got == b""
        stranger.close()
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("key", [KEY, None])
def test_a_body_that_stops_is_answered(short, key):
    began = time.monotonic()
    client = connected(short, sent=head_of(len(TOKENIZE), key) + TOKENIZE[:10])
    got = read_all(client)
    client.close()
    if key is None:
        assert got.startswith(b"HTTP/1.1 401 ")
    else:
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        error = json.loads(body)["error"]
        assert (error["code"], error["type"]) == ("request_timeout", "invalid_request_error")
    assert time.monotonic() - began < 8


def test_a_connection_is_kept_for_a_next_request_for_a_while(short):
    client = connected(short, sent=head_of(len(TOKENIZE)) + TOKENIZE)
    time.sleep(0.5)
    # Half of a next head has its own time.
    client.sendall(head_of(len(TOKENIZE))[:20])
    time.sleep(0.7)
    client.sendall(head_of(len(TOKENIZE))[20:] + TOKENIZE)
    began = time.monotonic()
    got = read_all(client)
    client.close()
    assert got.count(b"HTTP/1.1 200 ") == 2
    assert time.monotonic() - began < 8


def test_who_asks_for_much_and_reads_nothing_holds_nothing_up(short):
    """Pages are for everyone: their answers fill all buffers."""
    greedy = connected(short, "127.0.0.11")
    greedy.setblocking(False)
    request = b"GET /static/page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with contextlib.suppress(OSError):
        for _ in range(3000):
            greedy.send(request)
    assert served(short, "127.0.0.11")[0] == 200
    greedy.close()


def test_what_is_no_http_is_told_so(short):
    client = connected(short, sent=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
    head, _, body = read_all(client).partition(b"\r\n\r\n")
    client.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["message"]
