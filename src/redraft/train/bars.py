"""What a run and what goes before it say of how far they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from redraft.core.progress import progress

_LOSSES = ("diffusion", "causal", "values")


@contextmanager
def training_bar(steps: int, first: int) -> Iterator[Callable[[int, Mapping[str, float] | None], None]]:
    """Yields what moves the bar: steps done, and the figures of the last of them where they are known."""
    with progress("training", steps, first=first, soon=True) as move:
        text = ""

        def report(step: int, figures: Mapping[str, float] | None) -> None:
            nonlocal text
            if figures is not None:
                text = _described(figures)
            move(step, steps, text)

        yield report


def _described(figures: Mapping[str, float]) -> str:
    # A batch without a value in it has no loss of values.
    losses = [f"{name} {figures[name]:.3f}" for name in _LOSSES if math.isfinite(figures[name])]
    return "  ".join([*(losses or ["no finite loss"]), f"{figures['tokens_per_s']:.0f} tokens/s"])


@contextmanager
def checking_bar(rows: int) -> Iterator[Callable[[int], None]]:
    """Yields what moves the bar: rows done. It goes when they are."""
    with progress("checking rows", rows, transient=True) as move:
        yield lambda done: move(done, rows, "")
