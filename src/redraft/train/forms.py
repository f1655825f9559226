"""The two forms of what a step learns: one canvas of each reply, or every canvas of every reply in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from redraft.text.conversations import Conversation
from redraft.train.batch import Batch
from redraft.train.collate import Weights, bucketed, collate, collate_rows
from redraft.train.examples import Encoder, Example
from redraft.train.recipe import Recipe
from redraft.train.rows import Row, rows_of


@dataclass(frozen=True)
class Found:
    """What a conversation gives to learn from.

    Attributes:
        made: examples or rows that fit.
        cut: replies among them that were cut to fit.
        left_out: replies that did not fit at all.
        shortest: ids of the shortest prompt in it.
    """

    made: list[Any]
    cut: int
    left_out: int
    shortest: int


class Form(Protocol):
    """How conversations become batches."""

    @property
    def encoder(self) -> Encoder:
        """What renders and tokenizes them."""
        ...

    def found(self, conversation: Conversation, path: str) -> Found:
        """What it gives.

        Raises:
            DataError: see `Encoder.whole`.
        """
        ...

    def bucketed(self, made: Sequence[Any], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
        """Indices in batches of like size."""
        ...

    def batch(self, some: Sequence[Any], rng: np.random.Generator, *, trim: bool) -> Batch:
        """What a step takes."""
        ...


@dataclass(frozen=True, kw_only=True)
class OneCanvas:
    """Every reply is an example of its own, of which one canvas is drawn each time."""

    encoder: Encoder
    recipe: Recipe
    canvas_length: int
    fill: int

    def found(self, conversation: Conversation, path: str) -> Found:
        """See `Form`."""
        whole = self.encoder.whole(conversation, path)
        fitted: list[Example] = [one for one in map(self.encoder.fitted, whole) if one is not None]
        if self.recipe.truncation == "drop":
            fitted = [one for one in fitted if one.complete]
        cut = sum(not one.complete for one in fitted)
        return Found(fitted, cut, len(whole) - len(fitted), min(len(one.prompt) for one in whole))

    def bucketed(self, made: Sequence[Any], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
        """See `Form`."""
        return bucketed(made, batch_size, rng)

    def batch(self, some: Sequence[Any], rng: np.random.Generator, *, trim: bool) -> Batch:
        """See `Form`."""
        return collate(some, self.canvas_length, self.fill, rng, trim=trim, weights=_weights(self.recipe))


@dataclass(frozen=True, kw_only=True)
class EveryCanvas:
    """A conversation is a row, all canvases of its replies are scored; several rows may be packed into one."""

    encoder: Encoder
    recipe: Recipe
    canvas_length: int
    fill: int

    def found(self, conversation: Conversation, path: str) -> Found:
        """See `Form`."""
        whole = self.encoder.whole(conversation, path)
        rows = [row.fitted(self.encoder.max_length, self.recipe.truncation) for row in rows_of(whole)]
        fitted = [row for row in rows if row is not None]
        replies = [reply for row in fitted for reply in row.replies]
        cut = sum(not reply.complete for reply in replies)
        return Found(fitted, cut, len(whole) - len(replies), min(len(one.prompt) for one in whole))

    def bucketed(self, made: Sequence[Row], batch_size: int, rng: np.random.Generator) -> list[list[int]]:
        """See `Form`."""
        return bucketed(made, batch_size, rng, size=lambda row: row.size(self.canvas_length))

    def batch(self, some: Sequence[Row], rng: np.random.Generator, *, trim: bool) -> Batch:
        """See `Form`."""
        return collate_rows(
            some,
            self.canvas_length,
            self.fill,
            rng,
            trim=trim,
            weights=_weights(self.recipe),
            pack=self.recipe.max_length if self.recipe.packing else None,
            pad_to=self.recipe.pad_to,
        )


def form_of(recipe: Recipe, encoder: Encoder, canvas_length: int, fill: int) -> Form:
    """What a recipe asks for, for a model of such canvases that are filled so."""
    form = OneCanvas if recipe.canvases == "one" else EveryCanvas
    return form(encoder=encoder, recipe=recipe, canvas_length=canvas_length, fill=fill)


def _weights(recipe: Recipe) -> Weights:
    return Weights(
        value=recipe.value_weight, prompt=recipe.prompt_weight, fill=recipe.fill_weight, mean=recipe.mean_over
    )
