"""The stream of batches of a run: a function of (seed, step), so that a resumed run sees what it would have seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from redraft.core.errors import CheckpointError, DataError, ImageError, RecipeError
from redraft.text.chat import ChatTemplate
from redraft.text.conversations import Conversation, read_conversations
from redraft.text.tokenizer import Tokenizer
from redraft.train.augment import Augmentation
from redraft.train.batch import Batch
from redraft.train.examples import Encoder
from redraft.train.forms import Form, form_of
from redraft.train.pictures import NoPictures, Pictures, open_pictures, request_text
from redraft.train.recipe import Recipe


@dataclass(frozen=True)
class Part:
    """The conversations of one source, split into what is trained on and what is held out, and what is wrong with rows
    that are left out."""

    path: str
    share: float
    train: list[Conversation]
    held_out: list[Conversation]
    bad: list[DataError] = field(default_factory=list)

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
        bad: list[DataError] = []
        rows = read_conversations(source.path, bad if recipe.skip_bad else None, source.images)
        most = recipe.held_out if source.held_out is None else source.held_out
        fractions = [_fraction(row, str(source.path), bad if recipe.skip_bad else None) for row in rows]
        rows = [row for row, fraction in zip(rows, fractions, strict=True) if fraction is not None]
        held = [fraction < most for fraction in fractions if fraction is not None]
        train = [row for row, out in zip(rows, held, strict=True) if not out]
        held_out = [row for row, out in zip(rows, held, strict=True) if out]
        parts.append(Part(str(source.path), source.share, train, held_out, bad))
    return parts


def _fraction(row: Conversation, path: str = "", bad: list[DataError] | None = None) -> float | None:
    """Where in 0..1 a row's first request lies; None where a picture of it cannot be read, which is then bad.

    Raises:
        DataError: a picture cannot be read, and nobody takes what is bad.
    """
    content = next((m.get("content") for m in row.messages if m["role"] == "user"), "")
    try:
        first = request_text(content) if isinstance(content, list) else str(content)
    except ImageError as error:
        wrong = DataError(path, row.line, str(error))
        if bad is None:
            raise wrong from None
        bad.append(wrong)
        return None
    digest = hashlib.sha256(("held out:" + " ".join(first.lower().split())).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class Stream:
    """Batches by step number."""

    def __init__(self, recipe: Recipe, parts: list[Part], form: Form) -> None:
        self.recipe, self.parts, self.form = recipe, parts, form
        rows = [row for part in parts for row in part.train]
        self.augment = Augmentation(rows, **recipe.augment.model_dump())
        per_epoch = sum(part.per_epoch() for part in parts)
        self.steps_per_epoch = max(1, per_epoch // recipe.batch_size)
        self._epoch = -1
        self._made: list[Any] = []
        self._sources: list[tuple[str, int]] = []
        self._batches: list[list[int]] = []

    def batch(self, step: int) -> Batch:
        """The batch of this step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._prepare(epoch)
        rng = np.random.default_rng([self.recipe.seed, 1, step])
        chosen = [self._made[i] for i in self._batches[index % len(self._batches)]]
        trim = bool(rng.random() < self.recipe.trim_fill)
        return self.form.batch(chosen, rng, trim=trim)

    def rows_of(self, step: int) -> str:
        """Where the rows of a step's batch stand, for people."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._prepare(epoch)
        lines: dict[str, list[int]] = {}
        for place in sorted({self._sources[i] for i in self._batches[index % len(self._batches)]}):
            lines.setdefault(place[0], []).append(place[1])
        return "; ".join(
            f"{path}, line{'s' * (len(found) > 1)} {', '.join(map(str, found))}" for path, found in lines.items()
        )

    def held_out(self) -> list[Batch]:
        """The held-out batches, at full canvas length, always the same."""
        rng = np.random.default_rng([self.recipe.seed, 2])
        made = [one for part in self.parts for row in part.held_out for one in self.form.found(row, part.path).made]
        batches = self.form.bucketed(made, self.recipe.batch_size, rng)
        return [self.form.batch([made[i] for i in batch], rng, trim=False) for batch in batches]

    def _prepare(self, epoch: int) -> None:
        rng = np.random.default_rng([self.recipe.seed, 0, epoch])
        self._made, self._sources = [], []
        for part in self.parts:
            count = part.per_epoch()
            rounds = [rng.permutation(len(part.train)) for _ in range(-(-count // len(part.train)))]
            for i in np.concatenate(rounds)[:count]:
                row = part.train[i]
                # A change may have made it too long.
                changed = self.form.found(self.augment(row, rng), part.path).made
                found = changed or self.form.found(row, part.path).made
                self._made += found
                self._sources += [(part.path, row.line)] * len(found)
        batches = self.form.bucketed(self._made, self.recipe.batch_size, rng)
        # A short batch would be a noisy step; what it holds comes again in another epoch.
        whole = [batch for batch in batches if len(batch) == self.recipe.batch_size]
        self._batches = whole or batches
        self._epoch = epoch


def open_stream(
    recipe: Recipe,
    directory: Path,
    canvas_length: int,
    eos: int,
    parts: list[Part] | None = None,
    pictures: Pictures | NoPictures | None = None,
) -> Stream:
    """The stream of a recipe for the checkpoint in a directory.

    Args:
        recipe: names the data.
        directory: holds the tokenizer and the chat template.
        canvas_length: of the model.
        eos: fills canvases where the tokenizer has no "<eos>".
        parts: what `read_parts` has read, where that is known already.
        pictures: what lays out rows with pictures, where it has measured them already.

    Raises:
        CheckpointError: the directory has no tokenizer or no template.
    """
    form = open_form(recipe, directory, canvas_length, eos, pictures)
    return Stream(recipe, parts or read_parts(recipe), form)


def open_form(
    recipe: Recipe, directory: Path, canvas_length: int, eos: int, pictures: Pictures | NoPictures | None = None
) -> Form:
    """What makes batches for the checkpoint in a directory; see `open_stream`."""
    encoder = open_encoder(directory, recipe.max_length, pictures)
    own = encoder.tokenizer.id_of("<eos>")
    return form_of(recipe, encoder, canvas_length, eos if own is None else own)


def open_encoder(directory: Path, max_length: int, pictures: Pictures | NoPictures | None = None) -> Encoder:
    """What makes examples for the checkpoint in a directory.

    Raises:
        CheckpointError: the directory has no tokenizer or no template.
    """
    tokenizer, template = Tokenizer.from_directory(directory), ChatTemplate.from_directory(directory)
    if tokenizer is None or template is None:
        raise CheckpointError(f"{directory} needs a tokenizer.json and a chat template to be trained on conversations")
    return Encoder(tokenizer, template, max_length, pictures or open_pictures(directory))
