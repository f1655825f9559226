"""How far work is, on stderr: a bar on a terminal; elsewhere, as in a log, a plain line now and then."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

EVERY_S = 30.0

# What moves it: how many are done, of how many (None where nobody knows), and what is said beside them.
Move = Callable[[int, int | None, str], None]


def on_terminal() -> bool:
    """Whether somebody watches stderr on a screen that can be drawn on."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


@contextmanager
def progress(
    name: str, total: int | None = None, *, first: int = 0, transient: bool = False, soon: bool = False
) -> Iterator[Move]:
    """Shows how far work is until it ends.

    Args:
        name: of the work.
        total: of the parts to be done.
        first: how many an earlier run has done.
        transient: whether the bar goes when the work is done.
        soon: whether the first line comes with the first news, and not after the first `EVERY_S` seconds.
    """
    if not on_terminal():
        with lines(name, total, first=first, soon=soon) as move:
            yield move
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    # Names of files may have brackets, which are no markup.
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), Remaining())
    bar = Progress(*columns, console=Console(stderr=True), transient=transient)
    task = bar.add_task(name, total=total, completed=first)
    # A terminal may go, and the work goes on.
    with contextlib.suppress(OSError):
        bar.start()
    try:
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text or name)
    finally:
        with contextlib.suppress(OSError):
            bar.stop()


@contextmanager
def lines(name: str, total: int | None = None, *, first: int = 0, soon: bool = False) -> Iterator[Move]:
    """The same as lines, one every `EVERY_S` seconds, however long a part takes."""
    told, over = _Told(name, total, first, soon), threading.Event()

    def tell() -> None:
        while not over.wait(EVERY_S):
            told.tell()

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield told.move
    finally:
        over.set()
        thread.join()


class _Told:
    """What was heard last, and what is told of it."""

    def __init__(self, name: str, total: int | None, first: int, soon: bool) -> None:
        self._name, self._first, self._soon = name, first, soon
        self._news = first, total, ""
        self._started = time.monotonic()

    def move(self, done: int, total: int | None, text: str) -> None:
        self._news = done, total, text
        if self._soon and text:
            self._soon = False
            self.tell()

    def tell(self) -> None:
        # Whoever reads stderr may have gone, and the work goes on.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"redraft: {self._line()}\n")
            sys.stderr.flush()

    def _line(self) -> str:
        done, total, text = self._news
        elapsed = time.monotonic() - self._started
        count = "" if total is None else f"{done} of {total}"
        times = f"{_clock(elapsed)} so far"
        if total is not None and done > self._first:
            times += f", {_clock(elapsed / (done - self._first) * (total - done))} left"
        return ", ".join(part for part in (self._name, count, text, times) if part)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
