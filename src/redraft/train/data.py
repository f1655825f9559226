"""The stream of batches of a run: a function of (seed, step), so that a resumed run sees what it would have seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from redraft.core.errors import CheckpointError, RecipeError
from redraft.text.chat import ChatTemplate
from redraft.text.conversations import Conversation, read_conversations
from redraft.text.tokenizer import Tokenizer
from redraft.train.augment import Augmentation
from redraft.train.examples import Encoder, Example, bucketed, collate
from redraft.train.objective import Batch
from redraft.train.recipe import Recipe


@dataclass(frozen=True)
class Part:
    """The conversations of one source, split into what is trained on and what is held out."""

    path: str
    share: float
    train: list[Conversation]
    held_out: list[Conversation]

    def per_epoch(self) -> int:
        """How many rows an epoch takes.

        Raises:
            RecipeError: none.
        """
        count = round(self.share * len(self.train))
        if not self.train:
            raise RecipeError(f"{self.path}: all {len(self.held_out)} rows are held out: lower held_out or add rows")
        if not count:
            raise RecipeError(f"{self.path}: share {self.share:g} of {len(self.train)} rows is none: raise it")
        return count


def read_parts(recipe: Recipe) -> list[Part]:
    """Reads all sources and splits each by text, so that equal requests fall on one side.

    Raises:
        RecipeError: there is none.
        DataError: see `read_conversations`.
    """
    if not recipe.data:
        raise RecipeError(
            "the recipe has no data: write `data: [{path: FILE.jsonl}]` into it, or add --data FILE.jsonl"
        )
    parts = []
    for source in recipe.data:
        rows = read_conversations(source.path)
        held = [_fraction(row) < recipe.held_out for row in rows]
        train = [row for row, out in zip(rows, held, strict=True) if not out]
        held_out = [row for row, out in zip(rows, held, strict=True) if out]
        parts.append(Part(str(source.path), source.share, train, held_out))
    return parts


def _fraction(row: Conversation) -> float:
    first = next((str(m.get("content")) for m in row.messages if m["role"] == "user"), "")
    digest = hashlib.sha256(("held out:" + " ".join(first.lower().split())).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class Stream:
    """Batches by step number."""

    def __init__(self, recipe: Recipe, parts: list[Part], encoder: Encoder, canvas_length: int, fill: int) -> None:
        self.recipe, self.parts, self.encoder = recipe, parts, encoder
        self.canvas_length, self.fill = canvas_length, fill
        rows = [row for part in parts for row in part.train]
        self.augment = Augmentation(rows, **recipe.augment.model_dump())
        per_epoch = sum(part.per_epoch() for part in parts)
        self.steps_per_epoch = max(1, per_epoch // recipe.batch_size)
        self._epoch = -1
        self._examples: list[Example] = []
        self._batches: list[list[int]] = []

    def batch(self, step: int) -> Batch:
        """The batch of this step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._prepare(epoch)
        rng = np.random.default_rng([self.recipe.seed, 1, step])
        chosen = [self._examples[i] for i in self._batches[index % len(self._batches)]]
        trim = bool(rng.random() < self.recipe.trim_fill)
        return self._collated(chosen, rng, trim=trim)

    def held_out(self) -> list[Batch]:
        """The held-out batches, at full canvas length, always the same."""
        rng = np.random.default_rng([self.recipe.seed, 2])
        examples = [e for part in self.parts for row in part.held_out for e in self.encoder.examples(row, part.path)]
        batches = bucketed(examples, self.recipe.batch_size, rng)
        return [self._collated([examples[i] for i in batch], rng, trim=False) for batch in batches]

    def _collated(self, chosen: list[Example], rng: np.random.Generator, *, trim: bool) -> Batch:
        return collate(
            chosen,
            self.canvas_length,
            self.fill,
            rng,
            trim=trim,
            value_weight=self.recipe.value_weight,
            prompt_weight=self.recipe.prompt_weight,
        )

    def _prepare(self, epoch: int) -> None:
        rng = np.random.default_rng([self.recipe.seed, 0, epoch])
        self._examples = []
        for part in self.parts:
            count = part.per_epoch()
            rounds = [rng.permutation(len(part.train)) for _ in range(-(-count // len(part.train)))]
            for i in np.concatenate(rounds)[:count]:
                row = part.train[i]
                # A change may have made it too long.
                changed = self.encoder.examples(self.augment(row, rng), part.path)
                self._examples += changed or self.encoder.examples(row, part.path)
        batches = bucketed(self._examples, self.recipe.batch_size, rng)
        # A short batch would be a noisy step; what it holds comes again in another epoch.
        whole = [batch for batch in batches if len(batch) == self.recipe.batch_size]
        self._batches = whole or batches
        self._epoch = epoch


def open_stream(
    recipe: Recipe, directory: Path, canvas_length: int, eos: int, parts: list[Part] | None = None
) -> Stream:
    """The stream of a recipe for the checkpoint in a directory.

    Args:
        recipe: names the data.
        directory: holds the tokenizer and the chat template.
        canvas_length: of the model.
        eos: fills canvases where the tokenizer has no "<eos>".
        parts: what `read_parts` has read, where that is known already.

    Raises:
        CheckpointError: the directory has no tokenizer or no template.
    """
    encoder = open_encoder(directory, recipe.max_length)
    own = encoder.tokenizer.id_of("<eos>")
    return Stream(recipe, parts or read_parts(recipe), encoder, canvas_length, eos if own is None else own)


def open_encoder(directory: Path, max_length: int) -> Encoder:
    """What makes examples for the checkpoint in a directory.

    Raises:
        CheckpointError: the directory has no tokenizer or no template.
    """
    tokenizer, template = Tokenizer.from_directory(directory), ChatTemplate.from_directory(directory)
    if tokenizer is None or template is None:
        raise CheckpointError(f"{directory} needs a tokenizer.json and a chat template to be trained on conversations")
    return Encoder(tokenizer, template, max_length)
