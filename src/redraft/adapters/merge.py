"""Adds an adapter to the weights of its base: a checkpoint that needs no adapter any more."""

from __future__ import annotations

import hashlib
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from redraft.adapters.adapter import Pair
from redraft.adapters.attach import check_base, check_fits
from redraft.adapters.base import fingerprint_of
from redraft.adapters.files import WEIGHTS
from redraft.adapters.read import read_adapter
from redraft.checkpoint.convert import Converted, Progress, rewrite
from redraft.checkpoint.source import Source
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError

FORMS = ("bfloat16", "float32")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Attributes:
    written: the checkpoint.
    changed: how large each change is, |delta| / |W|, by parameter.
    """

    written: Converted
    changed: dict[str, float]

    @property
    def median_change(self) -> float:
        """Of all tensors that changed."""
        return statistics.median(self.changed.values())


def merge(
    adapter: str | Path, base: str | Path, directory: str | Path, *, on_progress: Progress | None = None
) -> Merged:
    """Writes a base with an adapter added, in the base's own dtype: the sum is float32, and rounded once.

    Args:
        adapter: its directory.
        base: the checkpoint that it was made for, in bfloat16 or float32.
        directory: made if missing; a run that was cut off goes on.
        on_progress: as `redraft.checkpoint.convert.quantize` calls it.

    Raises:
        CheckpointError: the base is quantised or another one, the adapter has other factors in each mode, or a file is
            at fault.
    """
    source = Source.open(base)
    _check_floating(source)
    found = read_adapter(adapter, source.config)
    if not found.is_one:
        raise CheckpointError(
            f"{adapter} has other factors in each mode, and a checkpoint has one set of weights for both: keep it "
            "beside its base"
        )
    check_fits(found, source.config)
    # What was tuned on a rounded form of this base is merged into what that was rounded from.
    check_base(found, fingerprint_of(source))
    changed: dict[str, float] = {}

    def change(parameter: str | None, tensor: StoredTensor) -> Tensor:
        pair = None if parameter is None else found.denoise.get(parameter)
        weight = tensor.read()
        if pair is None:
            return weight.contiguous()
        changed[str(parameter)], merged = added(weight, pair)
        return merged

    digest = hashlib.sha256((Path(adapter) / WEIGHTS).read_bytes()).hexdigest()
    written = rewrite(source, directory, change, task={"merge": digest}, on_progress=on_progress)
    # What it knows by heart is the adapter's: the calls that training has seen.
    if (known := Path(adapter) / "tools.json").exists():
        shutil.copyfile(known, Path(directory) / known.name)
    return Merged(written=written, changed=changed)


@torch.no_grad()
def added(weight: Tensor, pair: Pair) -> tuple[float, Tensor]:
    """(|delta| / |weight|, weight + delta in the weight's dtype); stacks an expert at a time."""
    merged, size, whole = torch.empty_like(weight), 0.0, 0.0
    stacks = weight.ndim == 3
    for expert in range(len(weight) if stacks else 1):
        a, b = (f[min(expert, len(f) - 1)] if stacks else f for f in (pair.a, pair.b))
        delta = b.float() @ a.float() * pair.scale
        old = weight[expert] if stacks else weight
        (merged[expert] if stacks else merged).copy_(old.float() + delta)
        size, whole = size + float(delta.square().sum()), whole + float(old.float().square().sum())
    return (size / whole) ** 0.5 if whole else float("inf"), merged


def _check_floating(source: Source) -> None:
    forms = {tensor.form for tensor in source.tensors.values()}
    if not source.quantised and forms <= {*FORMS, "float16"} and "float16" in forms:
        raise CheckpointError(f"{source.path} is stored in float16: `redraft export` it to bfloat16 first")
    if source.quantised or not forms <= set(FORMS):
        named = ", ".join(source.forms) if source.forms else ", ".join(sorted(forms - set(FORMS)))
        raise CheckpointError(
            f"{source.path} is stored in {named}: a small change added to a rounded weight is rounded away again; "
            "merge into the bfloat16 checkpoint and run `redraft quantize` on the result, or keep the adapter beside "
            "this base"
        )
