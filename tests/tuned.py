"""Adapters of the bundled model that change what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from redraft.adapters.adapter import Adapter
from redraft.adapters.base import fingerprint
from redraft.adapters.files import write_adapter
from redraft.adapters.settings import Settings

# (targets, seed, size) of two, one with experts. To JAZZ each writes other texts than mini, and than the other.
JAZZ = "play some jazz by Nina Simone"
FIRST: Any = (("attention", "dense", "experts"), 0, 0.1)
SECOND: Any = (("attention", "router", "self_conditioning"), 0, 0.3)


def random_adapter(model, targets: tuple[str, ...], seed: int, size: float) -> Adapter:
    """One whose second factors are random numbers of this size."""
    made = Adapter.fresh(Settings(targets=targets, rank=4, alpha=8.0), model.config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in made.named_parameters():
        if name.endswith(".b"):
            parameter.data.normal_(generator=generator).mul_(size)
    made.base = fingerprint(model)
    return made


def write_two(model, directory: Path) -> dict[str, Path]:
    """Directories of both, by the names "first" and "second"."""
    found = {}
    for name, (targets, seed, size) in (("first", FIRST), ("second", SECOND)):
        found[name] = directory / name
        write_adapter(random_adapter(model, targets, seed, size), model.config, found[name], base="mini")
    return found
