"""The process's log on stderr, which holds nobody up."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time

# The logger of a line for each request.
REQUESTS = "redraft.requests"
# Lines that wait for whoever reads stderr.
_WAITING = 1000


def log_to_stderr() -> None:
    """Writes this process's log to stderr on a thread of its own: a reader who does not read loses lines, and holds
    nobody up."""
    handler = _Dropping()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger(REQUESTS).setLevel(logging.INFO)


class _Dropping(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[str] = queue.Queue(_WAITING)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(self.format(record) + "\n")

    def close(self) -> None:
        """Waits for the last lines, a moment."""
        end = time.monotonic() + 0.5
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
        super().close()

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            with contextlib.suppress(OSError, ValueError):
                # Not through sys.stderr, whose lock everyone else would wait for.
                os.write(2, line.encode(errors="replace"))
            self._lines.task_done()
