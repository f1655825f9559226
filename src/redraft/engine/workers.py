"""Requests moved by several processes, each with a copy of a small model.

A small model's step is a thousand operators too short to share. A second thread within a request gains nothing there,
and threads side by side wait for Python's lock a thousand times a step; processes do neither. How many threads a
request has is fixed with the model, so company cannot change a last bit.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import pickle
from collections import OrderedDict, deque
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from redraft.core.engine import Prepared
from redraft.core.events import Final, News
from redraft.engine.engine import LocalEngine
from redraft.engine.loop import UnderWay
from redraft.engine.running import PreparedReads, PreparedRequest
from redraft.engine.sequence import Sequence
from redraft.engine.variant import Variant
from redraft.engine.worker import packed, serve

_log = logging.getLogger(__name__)

# Parameters below which a model is copied into one process a core.
SMALL = 2**25
# Seconds that a step may wait for news, so that who moves the requests can look at its own queue.
PATIENCE_S = 0.05
# Constraints that a worker keeps, and conversations that it is known to have met.
KEPT = 32


class _Worker:
    """One process, and what is known of it."""

    def __init__(self, make: Callable[[], LocalEngine]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, make), name="redraft-worker", daemon=True)
        self._process.start()
        theirs.close()
        self.requests: dict[int, PreparedRequest | PreparedReads] = {}
        self.constraints: OrderedDict[int, Any] = OrderedDict()
        self.variants: dict[int, Variant] = {}
        self.met: deque[tuple[Variant | None, list[int]]] = deque(maxlen=KEPT)

    def end(self) -> None:
        self.connection.close()
        self._process.join(5)
        self._process.kill()

    def shared(self, sequence: UnderWay) -> int:
        """Tokens of the longest prompt here that this one goes on from."""
        prompt, variant = sequence.identity, sequence.variant
        return max((len(met) for on, met in self.met if on is variant and prompt[: len(met)] == met), default=0)

    def know(self, variant: Variant | None) -> None:
        """Sends an adapter, once."""
        if variant is not None and variant.number not in self.variants:
            self.connection.send(("adapter", variant.number, pickle.dumps(variant.adapter)))
            self.variants[variant.number] = variant

    def forget_retired(self) -> None:
        """Adapters that were unloaded are forgotten on both sides, once no request has them."""
        under_way = {prepared.sequence.variant for prepared in self.requests.values()}
        for number, variant in list(self.variants.items()):
            if variant.retired and variant not in under_way:
                del self.variants[number]
                self.met = deque((met for met in self.met if met[0] is not variant), maxlen=KEPT)
                # One that has died is replaced by the next request that is sent to it.
                with contextlib.suppress(OSError):
                    self.connection.send(("retire", number))


class RunningWorkers:
    """See `core.engine.Running`. A request goes where its conversation has been, else where there is least to do."""

    def __init__(self, engine: LocalEngine, make: Callable[[], LocalEngine], count: int) -> None:
        """`make` makes the engine once more, in each of `count` processes: a function that can be named there."""
        self._engine, self._make, self._count = engine, make, count
        self._workers: list[_Worker] = []
        self._number = self._constraints = self.moved = 0
        self._ended: list[tuple[Prepared, News]] = []
        atexit.register(self.close)

    def add(self, prepared: Prepared, *, drafts: bool = True) -> None:
        """The request takes part from the next step on."""
        assert isinstance(prepared, PreparedRequest | PreparedReads)
        sequence = prepared.sequence
        sequence.drafts = drafts
        for worker in self._workers:
            worker.forget_retired()
        least = min(len(worker.requests) for worker in self._workers)
        # A prefix is worth a wait behind two others, not more.
        able = [worker for worker in self._workers if len(worker.requests) <= least + 2]
        worker = max(able, key=lambda worker: (worker.shared(sequence), -len(worker.requests)))
        self._number += 1
        worker.requests[self._number] = prepared
        if sequence.finished:
            # It was cancelled before it began.
            self._lost(worker, self._number)
            return
        worker.met.append((sequence.variant, sequence.identity))
        try:
            worker.know(sequence.variant)
            if isinstance(sequence, Sequence):
                for constraint in (sequence.constraint, *sequence.instead):
                    self._send_constraint(worker, constraint)
            data = packed(sequence, self._engine, dict(worker.constraints), sequence.variant)
            worker.connection.send(("add", self._number, data, drafts))
        except OSError:
            del worker.requests[self._number]
            self._replace(worker)
            self.add(prepared, drafts=drafts)

    def cancel(self, prepared: Prepared) -> None:
        """The request takes part no more; its last event comes with one of the next steps."""
        assert isinstance(prepared, PreparedRequest | PreparedReads)
        for worker in self._workers:
            for number, one in worker.requests.items():
                if one is prepared:
                    try:
                        worker.connection.send(("cancel", number))
                    except OSError:
                        # The next step sees that it is gone.
                        _log.debug("a worker is gone")
                    return
        prepared.sequence.cancel()

    def step(self) -> list[tuple[Prepared, News]]:
        """What has happened since the last call; waits a little where nothing has."""
        events, self._ended = self._ended, []
        of_connection = {worker.connection: worker for worker in self._workers if worker.requests}
        for connection in wait(list(of_connection), 0 if events else PATIENCE_S):
            worker = of_connection[connection]  # type: ignore[index]
            try:
                while worker.connection.poll():
                    events += self._taken(worker, worker.connection.recv())
            except (EOFError, OSError):
                self._replace(worker)
        return events

    def clear(self) -> None:
        """Gives up every request, without a word of it. The first call starts the processes."""
        self._workers = self._workers or [_Worker(self._make) for _ in range(self._count)]
        for worker in self._workers:
            # One that has died is replaced by the next request that is sent to it.
            with contextlib.suppress(OSError):
                for number in worker.requests:
                    worker.connection.send(("cancel", number))
            worker.requests.clear()
        self._ended.clear()

    def close(self) -> None:
        """Ends the processes."""
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.end()

    def _taken(self, worker: _Worker, news: list[tuple[int, News]]) -> list[tuple[Prepared, News]]:
        self.moved += 1
        events: list[tuple[Prepared, News]] = []
        for number, event in news:
            if number in worker.requests:
                events.append((worker.requests[number], event))
                if isinstance(event, Final):
                    del worker.requests[number]
        return events

    def _send_constraint(self, worker: _Worker, constraint: Any) -> None:
        """A constraint is sent once; what was not used for long is forgotten on both sides."""
        if constraint is None:
            return
        number = next((number for number, known in worker.constraints.items() if known is constraint), None)
        if number is None:
            self._constraints += 1
            number = self._constraints
            worker.connection.send(("constraint", number, packed(constraint, self._engine, {})))
            worker.constraints[number] = constraint
            if len(worker.constraints) > KEPT:
                worker.connection.send(("forget", worker.constraints.popitem(last=False)[0]))
        worker.constraints.move_to_end(number)

    def _replace(self, worker: _Worker) -> None:
        """A new process in the place of one that has died; its requests are lost, those of the others are not."""
        _log.error("a worker process has ended; a new one takes its place")
        for number in list(worker.requests):
            self._lost(worker, number, "the process that had this request has ended")
        worker.end()
        self._workers[self._workers.index(worker)] = _Worker(self._make)

    def _lost(self, worker: _Worker, number: int, reason: str | None = None) -> None:
        prepared = worker.requests.pop(number)
        if reason is not None:
            prepared.sequence.fail(reason)
        self._ended.append((prepared, self._engine.result(prepared.sequence)))
