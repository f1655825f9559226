"""What canvases stand behind: the keys and values of their prompts, as each form of a batch lays them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.model.config import ModelConfig
from redraft.model.images import with_soft_tokens
from redraft.model.model import DiffusionGemma
from redraft.train.attend import DenoiseBatch, DenoiseCanvases, EncodeBatch
from redraft.train.batch import Batch
from redraft.train.precision import moved

# R rows, T positions of a row, N canvases, L positions of a canvas


class Behind(Protocol):
    """Of N canvases, what each may look at."""

    def of(self, chosen: Int[Tensor, "M"]) -> Behind:
        """The same for some of the canvases, by their places or as a mask."""
        ...

    def attend(self, config: ModelConfig, canvas_length: int) -> DenoiseBatch | DenoiseCanvases:
        """How the layers look at it."""
        ...

    def positions(self, canvas_length: int) -> Int[Tensor, "N L"]:
        """Of the canvases, each counted from the beginning of its conversation."""
        ...


@dataclass(frozen=True)
class OneEach:
    """Every canvas has a row of keys of its own; all tensors are on the device."""

    stored: list[tuple[Tensor, Tensor]]
    prefix: Int[Tensor, "N"]

    def of(self, chosen: Int[Tensor, "M"]) -> OneEach:
        """See `Behind`."""
        return OneEach([(keys[chosen], values[chosen]) for keys, values in self.stored], self.prefix[chosen])

    def attend(self, config: ModelConfig, canvas_length: int) -> DenoiseBatch:
        """See `Behind`."""
        return DenoiseBatch(config, self.stored, self.prefix, canvas_length)

    def positions(self, canvas_length: int) -> Int[Tensor, "N L"]:
        """See `Behind`."""
        return self.prefix[:, None] + torch.arange(canvas_length, device=self.prefix.device)


@dataclass(frozen=True)
class Several:
    """Canvases share the keys of their row.

    Attributes:
        stored: of each layer, of all rows, on the device.
        row, prefix, begin: of each canvas, on the host: its row, its place there, and where its conversation begins.
    """

    stored: list[tuple[Tensor, Tensor]]
    row: Int[Tensor, "N"]
    prefix: Int[Tensor, "N"]
    begin: Int[Tensor, "N"]

    def of(self, chosen: Int[Tensor, "M"]) -> Several:
        """See `Behind`."""
        here = chosen.cpu()
        return Several(self.stored, self.row[here], self.prefix[here], self.begin[here])

    def attend(self, config: ModelConfig, canvas_length: int) -> DenoiseCanvases:
        """See `Behind`."""
        return DenoiseCanvases(config, self.stored, self.row, self.prefix, self.begin, canvas_length)

    def positions(self, canvas_length: int) -> Int[Tensor, "N L"]:
        """See `Behind`."""
        first = moved(self.prefix - self.begin, self.stored[0][0].device)
        return first[:, None] + torch.arange(canvas_length, device=first.device)


def encode(model: DiffusionGemma, batch: Batch, draws: int = 1) -> tuple[Float[Tensor, "R T D"], Behind]:
    """Hidden states of the clean rows in the causal mode, and what is behind each canvas, `draws` times in a row."""
    tokens = moved(batch.tokens, model.device)
    positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    begins = None if batch.begins is None else moved(batch.begins, tokens.device)
    if begins is not None:
        positions = positions - begins
    assert batch.pictures is None or batch.placed is not None, "its pictures have not been seen"
    placed = batch.placed or ()
    embedded = model.backbone.embed(tokens)
    if placed:
        embedded = with_soft_tokens(embedded, placed)
    runs = [[picture.run for picture in row] for row in placed]
    attend = EncodeBatch(model.config, tokens.shape[1], model.device, begins, runs)
    encoded = model.backbone(embedded, positions, attend, causal=True)
    prefix = batch.prefix.repeat_interleave(draws, 0)
    if batch.row is None:
        stored = [(k.repeat_interleave(draws, 0), v.repeat_interleave(draws, 0)) for k, v in attend.stored]
        return encoded, OneEach(stored, moved(prefix, tokens.device))
    row = batch.row.repeat_interleave(draws, 0)
    # A canvas stands behind one token at least, and that is of its own conversation.
    begin = torch.zeros_like(prefix) if batch.begins is None else batch.begins[row, prefix - 1]
    return encoded, Several(attend.stored, row, prefix, begin)


def denoise(
    model: DiffusionGemma, canvas: Int[Tensor, "N L"], soft: Float[Tensor, "N L D"] | None, behind: Behind
) -> Float[Tensor, "N L D"]:
    """Hidden states of canvases, behind what they may look at; without `soft` a true zero signal."""
    L = canvas.shape[1]
    embedded = model.backbone.self_conditioning.condition(model.backbone.embed(canvas), soft)
    attend = behind.attend(model.config, L)
    return model.backbone(embedded, behind.positions(L), attend, causal=False)
