"""The training loop: reads a recipe, trains or goes on training, keeps the best checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.checkpoint.save import save_checkpoint
from redraft.core.allocator import keep_freed_memory
from redraft.model.model import DiffusionGemma
from redraft.train.bars import training_bar
from redraft.train.data import Stream, open_encoder, open_stream, read_parts
from redraft.train.dropout import BranchDropout
from redraft.train.fitting import fitting
from redraft.train.known import by_heart, write_by_heart
from redraft.train.objective import Objective, loss_of
from redraft.train.optimizer import make_optimizers
from redraft.train.precision import Working, training_device
from redraft.train.prefetch import Prefetch
from redraft.train.recipe import Recipe, read_recipe
from redraft.train.start import load_start, start_directory
from redraft.train.state import Average, Progress, load_state, save_state


def train(recipe_path: Path, overrides: list[str] | None = None, data: Path | None = None) -> dict[str, Any]:
    """Runs a recipe to its end; a run that was interrupted goes on where its last checkpoint stands.

    Writes into the recipe's output: `model/` (the best checkpoint by held-out loss, Hugging Face layout),
    `last/` (the newest), `state/` (what a resume needs) and `metrics.jsonl`.

    Returns:
        steps, seconds, best held-out loss, the directory of the best checkpoint, and how many rows were left out and
        replies cut because of `max_length`.

    Raises:
        RecipeError, DataError, CheckpointError: each in one line.
    """
    recipe = read_recipe(recipe_path, overrides or [], data)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device = training_device(recipe.device)
    keep_freed_memory()
    recipe.output.mkdir(parents=True, exist_ok=True)
    parts = read_parts(recipe)
    directory = start_directory(recipe, parts)
    # Before the weights are read, which may take minutes.
    found = fitting(recipe, parts, open_encoder(directory, recipe.max_length))
    known = by_heart([row for part in found.parts for row in part.train])
    model = load_start(directory, device)
    canvas_length, eos = model.config.canvas_length, model.config.eos_token_ids[0]
    opening = partial(open_stream, recipe, directory, canvas_length, eos, found.parts)
    trainer = _Trainer(recipe, model, opening(), known)
    return _run(trainer, opening) | {"rows_left_out": found.left_out, "replies_cut": found.cut}


def _run(trainer: _Trainer, opening: Callable[[], Stream]) -> dict[str, Any]:
    if not trainer.recipe.workers:
        return trainer.run()
    trainer.batches = prefetch = Prefetch(opening, trainer.stream, trainer.progress.step)
    try:
        return trainer.run()
    finally:
        prefetch.close()


class _Trainer:
    def __init__(
        self, recipe: Recipe, model: DiffusionGemma, stream: Stream, known: dict[str, Any] | None = None
    ) -> None:
        self.recipe, self.model, self.stream, self.known = recipe, model, stream, known or {}
        self.batches: Stream | Prefetch = stream
        self.optimizers = make_optimizers(model.backbone, recipe)
        self.average = Average(model, recipe.ema) if recipe.ema else None
        self.progress = load_state(recipe.output / "state", model, self.average, self.optimizers) or Progress()
        self.working = Working(model, getattr(torch, recipe.precision))
        self.dropout = BranchDropout(self.working.model, recipe.dropout) if recipe.dropout else None
        self.objective = Objective(
            causal_weight=recipe.causal_weight,
            self_conditioning=recipe.self_conditioning,
            soft_temperature=recipe.soft_temperature,
            draws=recipe.draws,
            noise_power=recipe.noise_power,
            rollout=recipe.rollout,
            rollout_steps=recipe.rollout_steps,
        )
        self.started = time.monotonic()

    def run(self) -> dict[str, Any]:
        first = self.progress.step
        tokens, since = 0, time.monotonic()
        with training_bar(self.recipe.steps, first) as report:
            for step in range(first, self.recipe.steps):
                parts, count = self._step(step)
                tokens += count
                self.progress.step = step + 1
                if (step + 1) % self.recipe.log_every == 0:
                    # The device is waited for here alone, and then has done what the clock is asked about.
                    parts = {key: float(value) for key, value in parts.items()}
                    now = time.monotonic()
                    parts["tokens_per_s"] = tokens / (now - since)
                    tokens, since = 0, now
                    self._log("train", parts)
                    report(step + 1, parts)
                last = step + 1 == self.recipe.steps
                if last or (step + 1) % self.recipe.eval_every == 0:
                    self._evaluate()
                if last or (step + 1) % self.recipe.save_every == 0:
                    save_state(self.recipe.output / "state", self.model, self.average, self.optimizers, self.progress)
        return {
            "steps": self.progress.step,
            "seconds": round(time.monotonic() - self.started, 1),
            "best_loss": self.progress.best_loss,
            "model": str(self.recipe.output / "model"),
        }

    def _step(self, step: int) -> tuple[dict[str, Tensor | float], int]:
        """(figures for the log, which stay on the device until they are written, tokens)."""
        rate = learning_rate(self.recipe, step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = self.batches.batch(step)
        objective = self.objective if step >= self.recipe.rollout_from else replace(self.objective, rollout=0.0)
        generator = _generator(self.recipe.seed, step)
        if self.dropout is not None:
            self.dropout.generator = generator
        loss, parts = loss_of(self.working.model, batch, generator, objective)
        self.working.model.backbone.zero_grad(set_to_none=True)
        loss.backward()
        self.working.give_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.model.backbone.parameters(), self.recipe.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.working.refresh()
        if self.average is not None:
            self.average.update(self.model, step)
        figures = parts | {"loss": loss.detach(), "learning_rate": rate, "gradient_norm": norm}
        return figures, int(batch.lengths.sum()) + batch.canvas.numel()

    def _evaluate(self) -> None:
        """Held-out losses with the averaged weights, on fixed noise; the best checkpoint is kept."""
        batches = self.stream.held_out()
        # The published objective, whatever is trained with: held-out losses stay comparable between recipes.
        objective = replace(self.objective, noise_power=1.0, rollout=0.0)
        if self.average is not None:
            self.average.swap(self.model)
        parts = []
        with torch.no_grad():
            for number, batch in enumerate(batches):
                loss, part = loss_of(self.model, batch, _generator(2**31 + self.recipe.seed, number), objective)
                parts.append({key: float(value) for key, value in (part | {"loss": loss}).items()})
        self._save("last")
        if parts:
            means = {key: _mean([part[key] for part in parts]) for key in parts[0]}
            self._log("held_out", means)
            if means["loss"] < self.progress.best_loss:
                self.progress.best_loss = means["loss"]
                self._save("model")
        else:
            self._save("model")
        if self.average is not None:
            self.average.swap(self.model)

    def _save(self, name: str) -> None:
        dtype = getattr(torch, self.recipe.save_dtype)
        save_checkpoint(self.model, self.recipe.output / name, dtype=dtype, same_weights=False)
        write_by_heart(self.known, self.recipe.output / name)

    def _log(self, kind: str, parts: dict[str, float]) -> None:
        rounded = {key: None if math.isnan(value) else float(f"{value:.6g}") for key, value in parts.items()}
        row = {"kind": kind, "step": self.progress.step, **rounded}
        with (self.recipe.output / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warmup, then a cosine down to `final_learning_rate`; `step` counts from 0."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * share


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed << 32) + step)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
