"""Lets the engine run on while its events are drawn."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing

from redraft.core.events import Event
from redraft.core.results import Generation


def pump(events: Iterator[Event]) -> Generator[Event]:
    """The same events, produced in a thread of their own.

    A frame that is kept in sight must not count as the engine's time, and an interrupt must not strike in the
    middle of a step: closing this iterator lets the step end, then closes `events` in the thread that runs it.
    """
    ready: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()

    def produce() -> None:
        end: BaseException | None = None
        try:
            try:
                for event in events:
                    ready.put(event)
                    if stop.is_set():
                        break
            finally:
                close = getattr(events, "close", None)
                if close is not None:
                    close()
        except BaseException as error:
            end = error
        ready.put(end)

    thread = threading.Thread(target=produce, name="redraft-stream", daemon=True)
    try:
        thread.start()
        while (event := ready.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()


def last_of(events: Iterator[Event]) -> Generation:
    """The generation that ends a stream, without anything drawn on the way."""
    with closing(pump(events)) as stream:
        for event in stream:
            if isinstance(event, Generation):
                return event
    raise RuntimeError("the engine's stream ended without a generation")
