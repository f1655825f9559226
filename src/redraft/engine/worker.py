"""A process that holds the model and moves its share of the requests; `workers` is the other end of its pipe."""

from __future__ import annotations

import contextlib
import io
import pickle
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from redraft.core.events import News
from redraft.engine.engine import LocalEngine
from redraft.engine.running import PreparedReads, PreparedRequest
from redraft.engine.sequence import Sequence


def packed(value: Any, engine: LocalEngine, constraints: dict[int, Any]) -> bytes:
    """A value on its way to another process, which has a tokenizer of its own, and knows these constraints."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    pickler.known = _known(engine) | {id(constraint): number for number, constraint in constraints.items()}
    pickler.dump(value)
    return buffer.getvalue()


def unpacked(data: bytes, engine: LocalEngine, constraints: dict[int, Any]) -> Any:
    """What `packed` packed."""
    unpickler = _Unpickler(io.BytesIO(data))
    own = {name: found for name, found in (("tokenizer", engine.tokenizer), ("factory", _factory(engine)))}
    unpickler.known = {**own, **constraints}
    return unpickler.load()


def serve(connection: Connection, make: Callable[[], LocalEngine]) -> None:
    """Makes an engine and moves requests until the pipe closes."""
    # The parent hears of an interrupt too, and closes the pipe once its requests have ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _Worker(connection, make()).run()


class _Worker:
    def __init__(self, connection: Connection, engine: LocalEngine) -> None:
        self._connection, self._engine = connection, engine
        self._running = engine.running()
        self._requests: dict[int, PreparedRequest | PreparedReads] = {}
        self._constraints: dict[int, Any] = {}

    def run(self) -> None:
        """One step of its requests after the other; commands are read between them."""
        while True:
            while not self._requests or self._connection.poll():
                self._obey(*self._connection.recv())
            number_of = {id(prepared): number for number, prepared in self._requests.items()}
            events: list[tuple[int, News]] = []
            for prepared, event in self._running.step():
                events.append((number_of[id(prepared)], event))
            for number in [number for number, prepared in self._requests.items() if prepared.sequence.finished]:
                del self._requests[number]
            self._connection.send(events)

    def _obey(self, command: str, number: int, data: bytes = b"", drafts: bool = False) -> None:
        if command == "constraint":
            self._constraints[number] = unpacked(data, self._engine, {})
        elif command == "forget":
            self._constraints.pop(number, None)
        elif command == "add":
            sequence = unpacked(data, self._engine, self._constraints)
            reply = isinstance(sequence, Sequence)
            self._requests[number] = prepared = PreparedRequest(sequence) if reply else PreparedReads(sequence, 0)
            self._running.add(prepared, drafts=drafts)
        elif number in self._requests:
            self._running.cancel(self._requests[number])


class _Pickler(pickle.Pickler):
    known: dict[int, Any]

    def persistent_id(self, obj: Any) -> Any:
        """What the other side has already."""
        return self.known.get(id(obj))


class _Unpickler(pickle.Unpickler):
    known: dict[Any, Any]

    def persistent_load(self, pid: Any) -> Any:
        """The same of this side."""
        return self.known[pid]


def _known(engine: LocalEngine) -> dict[int, Any]:
    shared = {id(engine.tokenizer): "tokenizer", id(_factory(engine)): "factory"}
    return {key: name for key, name in shared.items() if key != id(None)}


def _factory(engine: LocalEngine) -> Any:
    return None if engine.tokenizer is None else engine.admission.constraints
