"""Padded batches: of examples, with one canvas of each, and of rows, with every canvas of every reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int

from redraft.train.batch import Batch
from redraft.train.examples import Example
from redraft.train.pictures import RowPicture
from redraft.train.rows import Row

# B examples, R rows, T positions of a row, N canvases, L positions of a canvas
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a position counts for in a loss, which is the mean of them.

    Attributes:
        value: tokens inside argument values; others of a reply have 1.
        prompt: what stands before and between replies, in the causal loss; what a tool has said has none.
        fill: of a canvas, behind its reply's end.
        mean: over all positions of a batch, so that long replies count for more, or within each example or row first.
    """

    value: float = 1.0
    prompt: float = 1.0
    fill: float = 1.0
    mean: Literal["tokens", "conversations"] = "tokens"


def bucketed(
    examples: Sequence[_T],
    batch_size: int,
    rng: np.random.Generator,
    buckets: int = 16,
    *,
    size: Callable[[_T], tuple[int, int]] = lambda example: (len(example.response), len(example.prompt)),  # type: ignore[attr-defined]
) -> list[list[int]]:
    """Indices in batches of like size, in random order: shuffled, sorted within pools, shuffled again."""
    order = rng.permutation(len(examples))
    batches = []
    for pool in np.array_split(order, max(1, len(order) // (batch_size * buckets))):
        by_size = sorted(pool.tolist(), key=lambda i: size(examples[i]))
        batches += [by_size[i : i + batch_size] for i in range(0, len(by_size), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def packed(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Indices in groups whose lengths together are at most `most`: the longest first, each where room is."""
    groups: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        found = next((g for g, left in enumerate(room) if left >= lengths[i]), None)
        if found is None:
            groups.append([])
            room.append(most)
            found = len(groups) - 1
        groups[found].append(i)
        room[found] -= lengths[i]
    return groups


def collate(
    examples: Sequence[Example],
    canvas_length: int,
    fill: int,
    rng: np.random.Generator,
    *,
    trim: bool = False,
    weights: Weights = Weights(),
) -> Batch:
    """Pads examples and picks one canvas of each response at random.

    Args:
        examples: of like length, or padding is wasted.
        canvas_length: of the model.
        fill: the end-of-sequence id that fills the last canvas.
        rng: picks the canvases and, when trimming, how much fill is left.
        trim: ends all canvases a little behind the longest response in them, since fill is learned quickly.
        weights: of the positions.
    """
    lengths = [len(e.prompt) + len(e.response) for e in examples]
    chosen = [int(rng.integers((len(e.response) - 1) // canvas_length + 1)) * canvas_length for e in examples]
    L = canvas_length
    if trim:
        L = _trimmed([len(e.response) - c for e, c in zip(examples, chosen, strict=True)], canvas_length, rng)
    made = _Arrays(len(examples), max(lengths), len(examples), L, fill)
    for b, (example, start) in enumerate(zip(examples, chosen, strict=True)):
        prompt = len(example.prompt)
        made.tokens[b, : lengths[b]] = example.prompt + example.response
        made.put(b, example.response[start : start + L], example.values[start : start + L], example.complete, weights)
        made.causal[b, : prompt - 1] = weights.prompt
        if example.told:
            made.causal[b, : prompt - 1][np.array(example.told[1:])] = 0
        made.predict(b, prompt, example.values, weights)
    if weights.mean == "conversations":
        _even(made.scored, np.arange(len(examples))[:, None])
        _even(made.causal, np.arange(len(examples))[:, None])
    prefix = [len(e.prompt) + c for e, c in zip(examples, chosen, strict=True)]
    pictures = [example.pictures for example in examples]
    return made.batch(lengths=torch.tensor(lengths), prefix=torch.tensor(prefix), pictures=_any(pictures))


def collate_rows(
    rows: Sequence[Row],
    canvas_length: int,
    fill: int,
    rng: np.random.Generator,
    *,
    trim: bool = False,
    weights: Weights = Weights(),
    pack: int | None = None,
    pad_to: int = 1,
) -> Batch:
    """Pads rows and takes every canvas of every reply in them.

    Args:
        rows: of like size, or padding is wasted.
        canvas_length, fill, rng, trim, weights: as in `collate`.
        pack: puts several rows into one of at most so many ids, the longest row's if that is more; None leaves each by
            itself.
        pad_to: the padded length is a multiple of this.
    """
    lengths = [len(row.ids) for row in rows]
    groups = [[i] for i in range(len(rows))] if pack is None else packed(lengths, max(pack, *lengths))
    joined = [sum(lengths[i] for i in group) for group in groups]
    places = [
        (i, reply, start) for group in groups for i in group for reply in rows[i].replies
        for start in reply.canvases(canvas_length)
    ]  # fmt: skip
    L = canvas_length
    if trim:
        L = _trimmed([len(reply.ids) - start for _, reply, start in places], canvas_length, rng)
    T = -(-max(joined) // pad_to) * pad_to
    made = _Arrays(len(groups), T, len(places), L, fill)
    begins = np.zeros((len(groups), T), np.int64)
    owner = np.full((len(groups), T), -1)
    begin_of, home_of = {}, {}
    for r, group in enumerate(groups):
        at = 0
        for i in group:
            end = at + lengths[i]
            made.tokens[r, at:end], begins[r, at:], owner[r, at:end] = rows[i].ids, at, i
            made.causal[r, at : end - 1] = weights.prompt
            made.causal[r, at : end - 1][np.array(rows[i].told[1:], bool)] = 0
            begin_of[i], home_of[i], at = at, r, end
        # What fills the row up is nobody's.
        begins[r, at:] = at
    targets = np.roll(made.tokens, -1, axis=1)
    for i, row in enumerate(rows):
        for reply in row.replies:
            first = begin_of[i] + reply.start
            targets[home_of[i], first - 1 : first - 1 + len(reply.ids)] = reply.ids
            made.predict(home_of[i], first, reply.values, weights)
    for n, (_, reply, start) in enumerate(places):
        made.put(n, reply.ids[start : start + L], reply.values[start : start + L], reply.complete, weights)
    if weights.mean == "conversations":
        _even(made.scored, np.array([i for i, _, _ in places])[:, None])
        _even(made.causal, owner)
    return made.batch(
        lengths=torch.tensor(joined),
        prefix=torch.tensor([begin_of[i] + reply.start + start for i, reply, start in places]),
        row=torch.tensor([home_of[i] for i, _, _ in places]),
        begins=None if pack is None else torch.from_numpy(begins),
        targets=torch.from_numpy(targets),
        pictures=_any(
            [
                [replace(one, start=begin_of[i] + one.start) for i in group for one in rows[i].pictures]
                for group in groups
            ]
        ),
    )


class _Arrays:
    """A batch in the making: `Batch` has the names."""

    def __init__(self, R: int, T: int, N: int, L: int, fill: int) -> None:
        self.tokens, self.canvas = np.full((R, T), fill), np.full((N, L), fill)
        self.scored, self.values = np.ones((N, L), np.float32), np.zeros((N, L), bool)
        self.content = np.zeros((N, L), bool)
        self.causal, self.causal_values = np.zeros((R, T), np.float32), np.zeros((R, T), bool)

    def put(self, n: int, piece: list[int], values: list[bool], complete: bool, weights: Weights) -> None:
        """A canvas's own tokens; the rest of it is fill."""
        self.canvas[n, : len(piece)], self.values[n, : len(piece)] = piece, values
        self.content[n, : len(piece)] = True
        self.scored[n, : len(piece)][values] = weights.value
        self.scored[n, len(piece) :] = weights.fill if complete else 0

    def predict(self, r: int, first: int, values: list[bool], weights: Weights) -> None:
        """A reply that begins at a place of a row: the causal mode learns it from the position before on."""
        span = slice(first - 1, first - 1 + len(values))
        self.causal[r, span] = np.where(values, np.float32(weights.value), np.float32(1))
        self.causal_values[r, span] = values

    def batch(self, **more: Any) -> Batch:
        """As tensors."""
        return Batch(**{name: torch.from_numpy(array) for name, array in vars(self).items()}, **more)  # type: ignore[arg-type]


def _any(pictures: Sequence[Sequence[RowPicture]]) -> Sequence[Sequence[RowPicture]] | None:
    return pictures if any(pictures) else None


def _trimmed(left: Sequence[int], canvas_length: int, rng: np.random.Generator) -> int:
    """How long canvases are that end a little behind the longest piece in them."""
    longest = max(min(canvas_length, length) for length in left)
    return min(canvas_length, longest + int(rng.integers(0, 16)))


def _even(weight: Float[np.ndarray, "..."], owner: Int[np.ndarray, "..."]) -> None:
    """Scales weights so that those of each owner sum to the same, 1."""
    owner = np.broadcast_to(owner, weight.shape)
    for one in np.unique(owner[owner >= 0]):
        mine = owner == one
        if (total := weight[mine].sum()) > 0:
            weight[mine] /= total
