"""A process that holds the model and moves its share of the requests; `workers` is the other end of its pipe."""

from __future__ import annotations

import contextlib
import io
import pickle
import signal
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from redraft.adapters.adapter import Adapter
from redraft.core.events import News
from redraft.engine.engine import LocalEngine
from redraft.engine.running import PreparedReads, PreparedRequest
from redraft.engine.sequence import Sequence
from redraft.engine.variant import Variant


def packed(value: Any, engine: LocalEngine, constraints: dict[int, Any], variant: Variant | None = None) -> bytes:
    """A value on its way to another process, which has a tokenizer of its own, and knows these constraints and this
    variant."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    pickler.known = _known(engine) | {id(constraint): number for number, constraint in constraints.items()}
    if variant is not None:
        pickler.known[id(variant)] = variant_key(variant.number)
    pickler.dump(value)
    return buffer.getvalue()


def unpacked(data: bytes, engine: LocalEngine, known: dict[Any, Any]) -> Any:
    """What `packed` packed."""
    unpickler = _Unpickler(io.BytesIO(data))
    own = {name: found for name, found in (("tokenizer", engine.tokenizer), ("factory", _factory(engine)))}
    unpickler.known = {**own, **known}
    return unpickler.load()


def variant_key(number: int) -> str:
    """What a variant is called on the way."""
    return f"variant {number}"


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
        # Constraints and variants, as they are called on the way.
        self._sent: dict[Any, Any] = {}

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
            self._sent[number] = unpacked(data, self._engine, {})
        elif command == "forget":
            self._sent.pop(number, None)
        elif command == "adapter":
            self._sent[variant_key(number)] = self._variant(number, unpacked(data, self._engine, {}))
        elif command == "retire":
            self._sent.pop(variant_key(number)).retire()
        elif command == "add":
            sequence = unpacked(data, self._engine, self._sent)
            reply = isinstance(sequence, Sequence)
            self._requests[number] = prepared = PreparedRequest(sequence) if reply else PreparedReads(sequence, 0)
            self._running.add(prepared, drafts=drafts)
        elif number in self._requests:
            self._running.cancel(self._requests[number])

    def _variant(self, number: int, adapter: Adapter) -> Variant:
        with warnings.catch_warnings():
            # Whoever has loaded it has heard of them.
            warnings.simplefilter("ignore")
            return Variant.of(number, adapter, self._engine.model, self._engine.prefixes)


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
