"""What redraft's parts say beside their work, as lines on stderr: warnings, and what is done once on a machine."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import suppress
from typing import TextIO


def begin() -> None:
    """From now on this process says them so. For the command itself: a caller from Python has a way of its own."""
    warnings.showwarning = _warn
    log = logging.getLogger("redraft.kernels")
    log.setLevel(logging.INFO)
    log.addHandler(_Lines())
    log.propagate = False


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say(f"warning: {message}")


def _say(text: str) -> None:
    from redraft.cli.show import printable

    # Whoever reads stderr may have gone, and the work goes on.
    with suppress(OSError):
        print(f"redraft: {' '.join(printable(text).split())}", file=sys.stderr, flush=True)
