"""The state of a run on disk: weights, averaged weights, optimizer moments and the step, never pickled."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from redraft.checkpoint.formats.writer import write_safetensors
from redraft.core.errors import CheckpointError
from redraft.core.files import flush, read_json, replace_text
from redraft.core.strict_json import strict_json
from redraft.kernels.private import private
from redraft.model.model import DiffusionGemma
from redraft.train.adapting import learning
from redraft.train.optimizer import Muon

# What an optimizer keeps of a parameter.
_MOMENTS = {Muon: {"momentum"}, torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}


class Average:
    """Exponential moving average of the parameters, corrected for its start."""

    def __init__(self, model: DiffusionGemma, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in learning(model).items()}

    @torch.no_grad()
    def update(self, model: DiffusionGemma, step: int) -> None:
        """Takes in the parameters after step `step` (from 0)."""
        # Short runs would else remember their random start.
        weight = 1 - min(self.decay, (step + 1) / (step + 10))
        current = learning(model)
        values, newest = list(self.values.values()), [current[name] for name in self.values]
        if (together := private("_foreach_lerp_", "averages are taken one by one")) is not None:
            together(values, newest, weight)
            return
        for value, new in zip(values, newest, strict=True):
            value.lerp_(new, weight)

    @torch.no_grad()
    def swap(self, model: DiffusionGemma) -> None:
        """Exchanges the model's parameters with the averaged ones; twice leaves both as they were."""
        for name, parameter in learning(model).items():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: how many are done.
        evaluated: the step of the last evaluation. One that was due and broke off is made up for.
        best_loss: held-out loss of the best checkpoint so far; without a judge the smallest.
        best_quality: what the judge says of it; None where nobody has.
        record: what the run belongs to; see `record_of`.
    """

    step: int = 0
    evaluated: int = 0
    best_loss: float = math.inf
    best_quality: float | None = None
    record: dict[str, Any] = field(default_factory=dict)


def save_state(
    directory: Path,
    model: DiffusionGemma,
    average: Average | None,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Writes the state beside the old one, and replaces that when it is on disk: whatever happens, one is whole."""
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        _write(fresh, model, average, optimizers, progress)
    except (OSError, SafetensorError):
        # A full disk gets its room back.
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    old = directory.with_name(directory.name + ".old")
    if directory.exists():
        # One that is there though the state is not has been left by a run that died between these lines.
        shutil.rmtree(old, ignore_errors=True)
        os.replace(directory, old)
    os.replace(fresh, directory)
    flush(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _write(
    fresh: Path,
    model: DiffusionGemma,
    average: Average | None,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in _held(model).items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.values.items()}
    tensors |= _moments(model, optimizers)
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_safetensors(fresh / "state.safetensors", held, {})
    replace_text(fresh / "progress.json", strict_json(vars(progress)))
    flush(fresh)


def saved_record(directory: Path) -> dict[str, Any]:
    """What the saved state belongs to; empty where there is none, where it does not say, or cannot be read."""
    for place in (directory, directory.with_name(directory.name + ".old")):
        if place.exists():
            try:
                return _progress(read_json(place / "progress.json"), place).record
            except CheckpointError:
                # `load_state` will say what is wrong with it.
                return {}
    return {}


def load_state(
    directory: Path, model: DiffusionGemma, average: Average | None, optimizers: list[torch.optim.Optimizer]
) -> Progress | None:
    """Restores a saved state into its parts, on whatever device they are; None where there is none.

    Raises:
        CheckpointError: it is damaged, or of another model or optimizer.
    """
    if not directory.exists():
        directory = directory.with_name(directory.name + ".old")
        if not directory.exists():
            return None
    try:
        progress = _progress(read_json(directory / "progress.json"), directory / "progress.json")
        tensors = load_file(directory / "state.safetensors")
        _restore(tensors, directory / "state.safetensors", model, average, optimizers)
    except (CheckpointError, SafetensorError, OSError) as error:
        # Without a word, the run would begin anew over what there is of it.
        way = f"delete {directory} to begin anew, or give the run another output"
        raise CheckpointError(f"the state in {directory} cannot be taken up: {error}: {way}") from None
    return progress


def _progress(fields: dict[str, Any], path: Path) -> Progress:
    step, best_loss = fields.get("step"), fields.get("best_loss")
    # A state of before evaluations could break off does not say.
    evaluated = fields.get("evaluated", step)
    if not isinstance(step, int) or not isinstance(evaluated, int) or not isinstance(best_loss, float | int | None):
        raise CheckpointError(f"{path} has a field that is no number")
    quality, record = fields.get("best_quality"), fields.get("record", {})
    if not isinstance(quality, float | int | None) or not isinstance(record, dict):
        raise CheckpointError(f"{path} has a field of the wrong kind")
    return Progress(
        step=step,
        evaluated=evaluated,
        best_loss=math.inf if best_loss is None else best_loss,
        best_quality=quality,
        record=record,
    )


def _restore(
    tensors: dict[str, Tensor],
    path: Path,
    model: DiffusionGemma,
    average: Average | None,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    parameters, held = learning(model), _held(model)
    shapes = {name: tensor.shape for name, tensor in held.items()}
    saved = _part(tensors, "model.")
    if {name: tensor.shape for name, tensor in saved.items()} != shapes:
        raise CheckpointError(f"{path} holds another model")
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(saved[name])
    if average is not None:
        # A run that had none begins its average here.
        averaged = _part(tensors, "average.") or saved
        for name, value in average.values.items():
            value.copy_(averaged[name])
    keys = {id(p): _MOMENTS[type(o)] for o in optimizers for group in o.param_groups for p in group["params"]}
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for key, name in (full.split(".", 1) for full in tensors if not full.startswith(("model.", "average."))):
        parameter = parameters.get(name)
        if parameter is None or key not in keys[id(parameter)]:
            raise CheckpointError(f"{path} holds {key} of {name}, which is another optimizer's")
        owner[id(parameter)].state[parameter][key] = tensors[f"{key}.{name}"].to(parameter.device)


def _moments(model: DiffusionGemma, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in learning(model).items()}
    return {
        f"{key}.{names[id(parameter)]}": value
        for optimizer in optimizers
        for parameter, moments in optimizer.state.items()
        for key, value in moments.items()
    }


def _held(model: DiffusionGemma) -> Mapping[str, Tensor]:
    """What a state holds of a model: all of it, and of its tower where that learns, or an adapter without its base."""
    whole = all(parameter.requires_grad for parameter in model.backbone.parameters())
    return learning(model) | model.backbone.state_dict() if whole else learning(model)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
