"""An end that somebody asks for: Ctrl-C, SIGTERM and a terminal that goes end a run where it can be taken up again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redraft.core.progress import on_terminal

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# A signal that comes again at once is the same one: a shell and `timeout`, `uv run` and others both pass it on.
_SAME_S = 0.3


class Interrupted(KeyboardInterrupt):
    """A run has ended because a signal asked for it.

    Attributes:
        signal: its number.
        result: what `train` would have returned; None where the first step had not begun.
    """

    def __init__(self, number: int, result: dict[str, Any] | None = None) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal, self.result = number, result


class Stop:
    """What the signals ask of a run.

    Attributes:
        asked: the signal that has come.
        deferred: whether the run looks for itself when it can end; before that a signal ends it at once.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.asked: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Called where the run can end.

        Raises:
            Interrupted: a signal has asked for it.
        """
        if self.asked is not None:
            raise Interrupted(self.asked)

    def install(self) -> None:
        """Takes the signals over, but for those that are to be ignored: of `nohup`, or of a shell's background jobs."""
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)

    def restore(self) -> None:
        """Gives them back."""
        for number, handler in self._before.items():
            # None where it was not Python that had set it.
            signal.signal(number, handler or signal.SIG_DFL)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked is None:
            self.asked, self._since = number, time.monotonic()
            if not self.deferred:
                raise Interrupted(number)
            _tell(number)
        elif time.monotonic() - self._since > _SAME_S:
            self.restore()
            signal.raise_signal(number)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Heeds the signals until the block ends: the first asks for an end, a second one does what it did before.

    Outside the main thread, which alone hears signals, nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    stop.install()
    try:
        yield stop
    finally:
        stop.restore()


def _tell(number: int) -> None:
    text = f"redraft: {signal.Signals(number).name}: saving, then ending; once more ends at once\n"
    # The line of a bar makes room, and the cursor comes back that a second signal would leave hidden.
    start = "\r\x1b[2K\x1b[?25h" if on_terminal() else ""
    # Not through sys.stderr: in the midst of its own write it cannot be entered again.
    with contextlib.suppress(OSError):
        os.write(2, (start + text).encode())
