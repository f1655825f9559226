"""What torch has without promising it: every such name is asked for here, and whoever asks can do without."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import torch

_missed: set[str] = set()


def private(name: str, instead: str) -> Any:
    """torch's own of this name; None, after one warning, where this version has none.

    Args:
        name: below torch, as "ops.onednn.qlinear_prepack".
        instead: what is done without it, for the warning.
    """
    try:
        return operator.attrgetter(name)(torch)
    except AttributeError:
        if name not in _missed:
            _missed.add(name)
            warnings.warn(f"torch {torch.__version__} has no {name}: {instead}", stacklevel=2)
        return None
