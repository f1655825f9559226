"""Positions of a canvas that are no longer computed: the model is sure of the token that stands there.

A step's work is a sum over positions on a machine that waits for its arithmetic, and most of them are settled long
before the last is, those behind the end first of all. Source: SureLock, arXiv 2602.06412, which asks how far a
position's distribution moves; here it is asked what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from redraft.kernels.head_stats import HeadStats
from redraft.model.some import CanvasKeys

# L positions of a canvas, A of them that are computed


@dataclass
class Frozen:
    """What a canvas whose positions may freeze keeps from step to step.

    Attributes:
        still: positions that are no longer computed; they keep their tokens.
        keys: of all positions, as they were when they were computed last.
        hidden: the same, after the final norm.
        stats: what the head has found there, before anything steered it.
    """

    still: Bool[Tensor, "L"]
    keys: CanvasKeys
    hidden: Float[Tensor, "L D"] | None = None
    stats: HeadStats | None = None

    @classmethod
    def none(cls, length: int, device: torch.device) -> Frozen:
        """Of a canvas all of whose positions are computed."""
        return cls(still=torch.zeros(length, dtype=torch.bool, device=device), keys=CanvasKeys())

    def cut(self, length: int) -> None:
        """Drops the positions from `length` on."""
        self.still = self.still[:length]
        self.keys.cut(length)
        self.hidden = None if self.hidden is None else self.hidden[:length]
        if self.stats is not None:
            found = {name: getattr(self.stats, name)[:, :length] for name in _ROWS}
            self.stats = replace(self.stats, **found)

    def see(self, places: Tensor, hidden: Float[Tensor, "A D"]) -> Float[Tensor, "L D"]:
        """Takes the hidden states of these positions; returns those of all."""
        if self.hidden is None:
            self.hidden = hidden
        else:
            self.hidden = self.hidden.index_copy(0, places, hidden)
        return self.hidden

    def joined(self, places: Tensor, found: HeadStats) -> HeadStats:
        """What the head has found at these positions, and at the others when they were computed last."""
        if self.stats is not None:
            merged = {name: getattr(self.stats, name).index_copy(1, places, getattr(found, name)) for name in _ROWS}
            found = replace(found, **merged)
        self.stats = found
        # Steering writes into what the step gets.
        return replace(found, **{name: getattr(found, name).clone() for name in _ROWS})

    def freeze(self, tokens: Tensor, nats: float) -> None:
        """Freezes positions where the likeliest token is the one that stood there, and less than `nats` are left."""
        assert self.stats is not None
        self.still = self.still | ((self.stats.argmax[0] == tokens) & (self.stats.entropy[0] < nats))


_ROWS = ("argmax", "sample", "entropy", "log_prob", "best_log_prob", "soft_embedding", "dropped_mass")
