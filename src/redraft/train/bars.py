"""Bars on stderr, for a run and for what goes before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


@contextmanager
def training_bar(steps: int, first: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Yields what moves the bar: steps done, and the figures that stand beside it."""
    with _bar("training", steps, first) as move:

        def report(step: int, parts: dict[str, float]) -> None:
            text = f"diffusion {parts['diffusion']:.3f}  causal {parts['causal']:.3f}  values {parts['values']:.3f}"
            move(step, f"{text}  {parts['tokens_per_s']:.0f} tokens/s")

        yield report


@contextmanager
def checking_bar(rows: int) -> Iterator[Callable[[int], None]]:
    """Yields what moves the bar: rows done. It goes when they are."""
    with _bar("checking rows", rows, 0, transient=True) as move:
        yield lambda done: move(done, "checking rows")


@contextmanager
def _bar(name: str, total: int, first: int, *, transient: bool = False) -> Iterator[Callable[[int, str], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    times, console = (TimeElapsedColumn(), TimeRemainingColumn()), Console(stderr=True)
    with Bar(*columns, *times, console=console, transient=transient) as bar:
        task = bar.add_task(name, total=total, completed=first)
        yield lambda done, text: bar.update(task, completed=done, description=text)
