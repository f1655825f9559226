"""Ends that nobody asked for: a loss that is no number, a disk that is full. Neither costs what was saved before."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from redraft.core.errors import CheckpointError, LossError

_FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name)}


class Finite:
    """Looks at the losses of a run: a CPU's before they change a weight, an accelerator's before anything is logged or
    saved, since they would have to be waited for."""

    def __init__(self, rows_of: Callable[[int], str]) -> None:
        """`rows_of` says which rows a step learns from."""
        self.rows_of = rows_of
        self._unseen: list[tuple[int, Tensor, Tensor]] = []

    def add(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Takes the loss and the gradient's norm of a step, from 0.

        Raises:
            LossError: see `check`.
        """
        self._unseen.append((step, loss, norm))
        if loss.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Looks at what it has taken.

        Raises:
            LossError: a loss or a norm is no number, or infinite.
        """
        unseen, self._unseen = self._unseen, []
        for step, loss, norm in unseen:
            for name, value in (("loss", float(loss)), ("gradient's norm", float(norm))):
                if not math.isfinite(value):
                    raise LossError(step + 1, f"the {name} of step {step + 1} is {value}, of {self.rows_of(step)}")


@contextmanager
def no_space_is_said(output: Path, saved: Callable[[], int]) -> Iterator[None]:
    """Turns the errors of a full disk into one line.

    Args:
        output: where the run writes.
        saved: the step of the state that is on disk.

    Raises:
        CheckpointError: no space is left.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) not in _FULL and "No space left" not in str(error):
            raise
        step = saved()
        kept = f"the state of step {step} and the best checkpoint are whole" if step else "nothing had been saved"
        raise CheckpointError(
            f"no space is left for {output}: {kept}; make room and give the same command again"
        ) from None
