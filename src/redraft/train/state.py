"""The state of a run on disk: weights, averaged weights, optimizer moments and the step, never pickled."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from redraft.kernels.private import private
from redraft.model.model import DiffusionGemma


class Average:
    """Exponential moving average of the parameters, corrected for its start."""

    def __init__(self, model: DiffusionGemma, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}

    @torch.no_grad()
    def update(self, model: DiffusionGemma, step: int) -> None:
        """Takes in the parameters after step `step` (from 0)."""
        # Short runs would else remember their random start.
        weight = 1 - min(self.decay, (step + 1) / (step + 10))
        current = dict(model.backbone.named_parameters())
        values, newest = list(self.values.values()), [current[name] for name in self.values]
        if (together := private("_foreach_lerp_", "averages are taken one by one")) is not None:
            together(values, newest, weight)
            return
        for value, new in zip(values, newest, strict=True):
            value.lerp_(new, weight)

    @torch.no_grad()
    def swap(self, model: DiffusionGemma) -> None:
        """Exchanges the model's parameters with the averaged ones; twice leaves both as they were."""
        for name, parameter in model.backbone.named_parameters():
            kept = parameter.detach().clone()
            parameter.copy_(self.values[name])
            self.values[name].copy_(kept)


@dataclass
class Progress:
    """Where a run is: steps done, and the best held-out loss so far."""

    step: int = 0
    best_loss: float = float("inf")
    history: dict[str, float] = field(default_factory=dict)


def save_state(
    directory: Path,
    model: DiffusionGemma,
    average: Average | None,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Writes the state beside the old one and then takes its place, so that an interruption loses neither."""
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tensors = {f"model.{name}": tensor for name, tensor in model.backbone.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.values.items()}
    tensors |= _moments(model, optimizers)
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, fresh / "state.safetensors")
    (fresh / "progress.json").write_text(json.dumps({"step": progress.step, "best_loss": progress.best_loss}))
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.replace(directory, old)
    os.replace(fresh, directory)
    shutil.rmtree(old, ignore_errors=True)


def load_state(
    directory: Path, model: DiffusionGemma, average: Average | None, optimizers: list[torch.optim.Optimizer]
) -> Progress | None:
    """Restores a saved state into its parts, on whatever device they are; None where there is none."""
    if not (directory / "progress.json").exists():
        directory = directory.with_name(directory.name + ".old")
        if not (directory / "progress.json").exists():
            return None
    tensors = load_file(directory / "state.safetensors")
    model.backbone.load_state_dict(_part(tensors, "model."))
    if average is not None:
        for name, tensor in _part(tensors, "average.").items():
            average.values[name].copy_(tensor)
    parameters = dict(model.backbone.named_parameters())
    owner = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    for key, name in (full.split(".", 1) for full in tensors if not full.startswith(("model.", "average."))):
        parameter = parameters[name]
        owner[id(parameter)].state[parameter][key] = tensors[f"{key}.{name}"].to(parameter.device)
    saved = json.loads((directory / "progress.json").read_text())
    return Progress(step=saved["step"], best_loss=saved["best_loss"])


def _moments(model: DiffusionGemma, optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in model.backbone.named_parameters()}
    return {
        f"{key}.{names[id(parameter)]}": value
        for optimizer in optimizers
        for parameter, moments in optimizer.state.items()
        for key, value in moments.items()
    }


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
