"""When a canvas under a constraint is done: its text stands still and is sure, or the model will not come round to it.

What counts is the text, the positions up to and with its end: which of several end-of-turn ids closes it, and what
lies behind, is no part of a reply. Of these, a position is free where sequences that the automaton takes differ there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# L positions

# No token, and not `UNSEEN`, which equals nothing.
BEHIND = -2
# Below it, entropies of a position that has one token are rounding.
_FORCED_NATS = 1e-12
# After some steps mini disagrees with its calls under its tools at a third of their positions at most; with what it
# would not write by itself, mostly at half and more.
AGAINST_SHARE = 0.4
AGAINST_STEPS = 3
# Of what is less than that against it, some texts change as late as that.
PARTLY_SHARE = 0.1
PARTLY_STEPS = 12
_PROGRESS = 0.5


@dataclass(frozen=True, kw_only=True)
class HeldStep:
    """What a step under a constraint says of its canvas, beside what it hands on.

    Attributes:
        own: the model's own argmax, before the constraint.
        own_entropy: nats, of its own distribution.
        entropy: nats, of each position's marginal under the constraint.
        local: nats, of each position's own distribution over the tokens that any sequence could have there.
    """

    own: Int[Tensor, "L"]
    own_entropy: Float[Tensor, "L"]
    entropy: Float[Tensor, "L"]
    local: Float[Tensor, "L"]


def text_length(argmax: Int[Tensor, "L"], end_ids: Collection[int], room: int) -> int:
    """Positions up to and with the first of the end ids, at most `room`."""
    end = next((place + 1 for place, token in enumerate(argmax.tolist()) if token in end_ids), len(argmax))
    return min(end, room)


def as_text(argmax: Int[Tensor, "L"], length: int, end_ids: Collection[int]) -> Int[Tensor, "L"]:
    """The canvas with `BEHIND` in place of its end and of what follows the first `length` positions, so that two
    canvases are equal where their texts are."""
    text = argmax.clone()
    text[length:] = BEHIND
    if length and int(text[length - 1]) in end_ids:
        text[length - 1] = BEHIND
    return text


def free_places(step: HeldStep, length: int) -> Int[Tensor, "N"]:
    """The free positions among the first `length`."""
    return torch.nonzero(torch.maximum(step.entropy[:length], step.local[:length]) > _FORCED_NATS)[:, 0]


def against(
    step: HeldStep, argmax: Int[Tensor, "L"], places: Int[Tensor, "N"], end_ids: Collection[int]
) -> Bool[Tensor, "N"]:
    """Of each of these positions, whether the model's own argmax is another token; ends are all alike."""
    own, held = step.own[places], argmax[places]
    ends = torch.tensor(sorted(end_ids), dtype=own.dtype, device=own.device)
    return (own != held) & ~(torch.isin(own, ends) & torch.isin(held, ends))


@dataclass
class Standstill:
    """How long the model has not come round to what it is held to.

    It comes round where it would write less of the text otherwise than it ever would, or where the text has become
    twice as sure. An entropy that falls by less says nothing: it falls with the schedule's temperature.

    Attributes:
        least_share: of the free positions, at which the model would have written another token.
        least_entropy: nats, mean over the free positions, when it last had halved.
        steps: since either fell.
        own: [L] the model's own argmax at the last step.
        own_steps: since it changed.
    """

    least_share: float = math.inf
    least_entropy: float = math.inf
    steps: int = 0
    own: Tensor | None = None
    own_steps: int = 0

    def is_for_good(
        self,
        step: HeldStep,
        *,
        share: float,
        mean_entropy: float,
        stood: int,
        stability_threshold: int,
        confidence_threshold: float,
    ) -> bool:
        """Takes a step; returns whether the model is against the text for good.

        Where it would write `AGAINST_SHARE` of the text otherwise, that is once it has not come round for
        `AGAINST_STEPS`, or at the first step at which its own canvas, left free, would have been done: it goes on from
        that, and no longer from what it is held to. Where it would write less of it otherwise, it may still come round:
        down to `PARTLY_SHARE` the text must have stood for `PARTLY_STEPS`, too, and below that it is waited for.

        Args:
            step: its results.
            share: of the free positions, at which the model would have written another token.
            mean_entropy: nats, over the free positions.
            stood: steps since the text changed.
            stability_threshold, confidence_threshold: of the canvas; a confidence of 0 lets nothing stop.
        """
        self._take(step, share, mean_entropy)
        if not confidence_threshold:
            return False
        if share < AGAINST_SHARE:
            stood = min(self.steps, stood)
            return share >= PARTLY_SHARE and stood >= max(PARTLY_STEPS, stability_threshold)
        own_is_done = self.own_steps >= stability_threshold and float(step.own_entropy.mean()) < confidence_threshold
        return self.steps >= (1 if own_is_done else max(AGAINST_STEPS, stability_threshold))

    def _take(self, step: HeldStep, share: float, mean_entropy: float) -> None:
        came_round = share < self.least_share or mean_entropy < _PROGRESS * self.least_entropy
        self.least_share = min(self.least_share, share)
        if mean_entropy < _PROGRESS * self.least_entropy:
            self.least_entropy = mean_entropy
        self.steps = 0 if came_round else self.steps + 1
        self.own_steps = self.own_steps + 1 if _same(self.own, step.own) else 0
        self.own = step.own


def _same(before: Tensor | None, now: Tensor) -> bool:
    # A canvas may have been cut in between.
    return before is not None and torch.equal(before[: len(now)], now)
