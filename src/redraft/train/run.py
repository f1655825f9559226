"""The training loop: reads a recipe, trains or goes on training, keeps the best checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from redraft.adapters.base import fingerprint
from redraft.core.allocator import keep_freed_memory
from redraft.core.errors import LossError
from redraft.core.threads import checked
from redraft.model.config import ModelConfig
from redraft.model.model import DiffusionGemma
from redraft.train.adapting import Tuned, learning, load_base
from redraft.train.bars import training_bar
from redraft.train.batch import Batch
from redraft.train.data import Stream, open_form, open_stream, read_parts
from redraft.train.dropout import BranchDropout
from redraft.train.endings import Finite, no_space_is_said
from redraft.train.fitting import fitting
from redraft.train.held_out import at_fixed_noise, held_out_losses
from redraft.train.judging import QUALITY, Judge, judging, rows_to_judge
from redraft.train.keeping import Kept
from redraft.train.known import by_heart
from redraft.train.metrics import forget_beyond
from redraft.train.objective import Objective, loss_of
from redraft.train.optimizer import make_optimizers
from redraft.train.pictures import open_pictures
from redraft.train.precision import Working, training_device
from redraft.train.prefetch import Prefetch
from redraft.train.recipe import Recipe, read_recipe
from redraft.train.record import check_record, record_of
from redraft.train.schedule import generator_of, learning_rate, seed_of
from redraft.train.seeing import Eyes, open_eyes
from redraft.train.start import load_start, start_directory
from redraft.train.state import Average, Progress, load_state, save_state, saved_record
from redraft.train.stopping import Interrupted, Stop, stopping
from redraft.train.watching import Log


def train(
    recipe_path: Path, overrides: list[str] | None = None, data: Path | None = None, judge: Judge | None = None
) -> dict[str, Any]:
    """Runs a recipe to its end; a run that was interrupted goes on where its last state stands.

    Writes into the recipe's output: `model/` (the best checkpoint by its judge, or else by held-out loss, Hugging Face
    layout), or of an adapter `adapter/` in peft's layout, `last/` (the newest), `state/` (what a resume needs) and
    `metrics.jsonl`.

    Args:
        recipe_path, overrides, data: see `read_recipe`.
        judge: asks and grades, where the recipe names a grader; this room cannot run a model on prompts.

    Returns:
        steps, how many the recipe wants, seconds, held-out loss and quality of the best checkpoint, the directories of
        it, or of the adapter, and of the state, whether it was interrupted, how many rows were left out and replies
        cut because of `max_length`, and how many bad rows were skipped.

    Raises:
        RecipeError, DataError, CheckpointError: each in one line. A state that belongs to a run with other data, texts,
            base or recipe, and a full disk, are the last.
        LossError: a loss is no number; what was saved before stays.
        Interrupted: SIGINT, SIGTERM or SIGHUP has ended it; the state is saved.
    """
    with stopping() as stop:
        return _train(read_recipe(recipe_path, overrides or [], data), stop, judge)


def _train(recipe: Recipe, stop: Stop, judge: Judge | None = None) -> dict[str, Any]:
    if recipe.threads:
        torch.set_num_threads(checked(recipe.threads, "threads"))
    if recipe.workers:
        checked(recipe.workers, "workers")
    device = training_device(recipe.device)
    keep_freed_memory()
    recipe.output.mkdir(parents=True, exist_ok=True)
    parts = read_parts(recipe)
    directory = start_directory(recipe, parts)
    config = ModelConfig.from_directory(directory)
    canvas_length, eos = config.canvas_length, config.eos_token_ids[0]
    # Before the weights are read, which may take minutes.
    pictures = open_pictures(directory)
    found = fitting(recipe, parts, open_form(recipe, directory, canvas_length, eos, pictures))
    known = by_heart([row for part in found.parts for row in part.train])
    rows = rows_to_judge(recipe, found.parts, judge)
    tuned = load_base(recipe, directory, device) if recipe.adapter is not None else None
    model = load_start(directory, device) if tuned is None else tuned.model
    opening = partial(open_stream, recipe, directory, canvas_length, eos, found.parts, pictures)
    base = fingerprint(model) if tuned is None else tuned.attached.adapter.base
    if (eyes := open_eyes(recipe, pictures, directory, model)) is not None:
        base = {**base, "vision": eyes.digest}
    record = record_of(recipe, directory, base, pictures.digest)
    trainer = _Trainer(recipe, model, opening(), known, stop, tuned, record, eyes)
    if judge is not None and rows:
        trainer.judge = judging(judge, recipe, directory, rows, stop.check)
    result = _run(trainer, opening) | {
        "rows_left_out": found.left_out,
        "replies_cut": found.cut,
        "rows_bad": found.bad,
    }
    if trainer.interrupted is not None:
        raise Interrupted(trainer.interrupted, result)
    return result


def _run(trainer: _Trainer, opening: Callable[[], Stream]) -> dict[str, Any]:
    trainer.stop.deferred = True
    if not trainer.recipe.workers:
        return trainer.run()
    trainer.batches = prefetch = Prefetch(opening, trainer.stream, trainer.progress.step, trainer.stop)
    try:
        return trainer.run()
    finally:
        prefetch.close()


class _Trainer:
    def __init__(
        self,
        recipe: Recipe,
        model: DiffusionGemma,
        stream: Stream,
        known: dict[str, Any] | None = None,
        stop: Stop | None = None,
        tuned: Tuned | None = None,
        record: dict[str, Any] | None = None,
        eyes: Eyes | None = None,
    ) -> None:
        self.recipe, self.model, self.stream, self.tuned, self.eyes = recipe, model, stream, tuned, eyes
        self.kept = Kept(recipe, model, tuned, known or {})
        self.stop = stop or Stop()
        self.interrupted: int | None = None
        self.judge: Callable[[DiffusionGemma], dict[str, float]] | None = None
        self.finite = Finite(stream.rows_of)
        self.batches: Stream | Prefetch = stream
        self.optimizers = make_optimizers(learning(model), recipe)
        self.average = Average(model, recipe.ema) if recipe.ema else None
        self.state = recipe.output / "state"
        if record is not None:
            check_record(saved_record(self.state), record, self.state, recipe)
        self.progress = load_state(self.state, model, self.average, self.optimizers) or Progress()
        self.progress.record = record or self.progress.record
        self.saved = replace(self.progress)
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
        self.log = Log(recipe)
        self.started = self.saved_at = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Trains to the end, or until the run shall end, and returns what `train` does."""
        reached = dict.fromkeys(("held_out", "noise", "judged"), self.progress.evaluated)
        with no_space_is_said(self.recipe.output, lambda: self.saved.step):
            forget_beyond(self.log.path, {"train": self.progress.step} | reached)
            try:
                self._train()
            except Interrupted as interrupted:
                self.interrupted = interrupted.signal
                if self.progress != self.saved:
                    self._save_state()
            except LossError as error:
                raise LossError(error.step, f"{error}; {self._kept()}") from None
            finally:
                self.log.close()
        best = self.recipe.output / self.kept.name
        return {
            "steps": self.progress.step,
            "of_steps": self.recipe.steps,
            "seconds": round(time.monotonic() - self.started, 1),
            "best_loss": self.progress.best_loss if math.isfinite(self.progress.best_loss) else None,
            **({} if self.progress.best_quality is None else {"best_quality": self.progress.best_quality}),
            self.kept.name: str(best) if self.progress.evaluated and best.exists() else None,
            "state": str(self.state),
            "interrupted": self.interrupted is not None,
        }

    def _train(self) -> None:
        first = self.progress.step
        with training_bar(self.recipe.steps, first) as report:
            # The run may have ended in the midst of an evaluation.
            self._evaluate_and_save_if_due()
            tokens, since = 0, time.monotonic()
            for step in range(first, self.recipe.steps):
                self.stop.check()
                parts, count = self._step(step)
                tokens += count
                self.progress.step = step + 1
                figures = None
                if (step + 1) % self.recipe.log_every == 0:
                    # The device is waited for here alone, and then has done what the clock is asked about.
                    self.finite.check()
                    figures = {key: float(value) for key, value in parts.items()}
                    now = time.monotonic()
                    figures["tokens_per_s"] = tokens / (now - since)
                    tokens, since = 0, now
                    self.log.add("train", step + 1, figures)
                report(step + 1, figures)
                self._evaluate_and_save_if_due()

    def _evaluate_and_save_if_due(self) -> None:
        """The state goes with every evaluation: it has to know the loss of the best checkpoint that is there."""
        step, last = self.progress.step, self.progress.step == self.recipe.steps
        evaluates = step > self.progress.evaluated and (last or step % self.recipe.eval_every == 0)
        if evaluates:
            self._evaluate()
        waited = time.monotonic() - self.saved_at >= 60 * self.recipe.save_minutes
        if self.progress != self.saved and (evaluates or last or waited or step % self.recipe.save_every == 0):
            self._save_state()

    def _kept(self) -> str:
        """What there is of a run whose loss is no number."""
        if self.model.device.type == "cpu" and self.progress != self.saved:
            # That step has changed nothing.
            self._save_state()
        if not self.saved.step:
            return "nothing had been saved: lower learning_rate, or look at these rows"
        kept = f"the state of step {self.saved.step} in {self.state} is whole"
        return f"{kept}: lower learning_rate in a run with another output, or look at these rows"

    def _save_state(self) -> None:
        self.finite.check()
        save_state(self.state, self.model, self.average, self.optimizers, self.progress)
        self.saved, self.saved_at = replace(self.progress), time.monotonic()

    def _step(self, step: int) -> tuple[dict[str, Tensor | float], int]:
        """(figures for the log, which stay on the device until they are written, tokens)."""
        rate = learning_rate(self.recipe, step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        batch = self._seen(self.batches.batch(step), self.working.model)
        objective = self.objective if step >= self.recipe.rollout_from else replace(self.objective, rollout=0.0)
        generator = generator_of(self.recipe.seed, step)
        if self.dropout is not None:
            self.dropout.generator = generator
        if self.tuned is not None:
            self.tuned.attached.dropout.begin(seed_of(self.recipe.seed, step))
        loss, parts = loss_of(self.working.model, batch, generator, objective)
        self.working.model.zero_grad(set_to_none=True)
        # Of a batch without signal an adapter of self-conditioning alone learns nothing.
        if loss.requires_grad:
            loss.backward()
        self.working.give_gradients()
        norm = torch.nn.utils.clip_grad_norm_(learning(self.model).values(), self.recipe.clip_norm)
        self.finite.add(step, loss.detach(), norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.working.refresh()
        if self.average is not None:
            self.average.update(self.model, step)
        figures = parts | {"loss": loss.detach(), "learning_rate": rate, "gradient_norm": norm}
        return figures, int(batch.lengths.sum()) + batch.canvas.numel()

    def _seen(self, batch: Batch, model: DiffusionGemma) -> Batch:
        return batch if self.eyes is None else self.eyes.shown(batch, model)

    @torch.no_grad()
    def _looked_at(self, batch: Batch) -> Batch:
        self.stop.check()
        return self._seen(batch, self.model)

    def _evaluate(self) -> None:
        """Held-out losses with the averaged weights, on fixed noise; the best checkpoint is kept."""
        batches = self.stream.held_out()
        # The published objective, whatever is trained with: held-out losses stay comparable between recipes.
        objective = replace(self.objective, noise_power=1.0, rollout=0.0)
        if self.average is not None:
            self.average.swap(self.model)
        try:
            see, seed = self._looked_at, self.recipe.seed
            means = held_out_losses(batches, seed, lambda b, noise: loss_of(self.model, see(b), noise, objective))
            noise = [one.figures() for one in at_fixed_noise(self.model, batches, seed, see)]
            self.kept.save("last")
            judged = self.judge(self.model) if self.judge is not None else {}
            self.kept.save_if_best(self.progress, means.get("loss"), judged.get(QUALITY))
            step = self.progress.step
            for kind, rows in (("held_out", [means]), ("noise", noise), ("judged", [judged])):
                for row in filter(None, rows):
                    self.log.add(kind, step, row)
            self.progress.evaluated = step
        finally:
            if self.average is not None:
                self.average.swap(self.model)
