"""Samplers: what a step makes of a canvas.

The named ones are one `Rule` of a few numbers, so that canvases of one batch may differ, and a captured step has one
kernel (`advance`). Whatever else maps what was `Seen` to a `Move` is a `Sampler` as well; it runs on the host, canvas
by canvas, and its canvases are never part of a captured step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.core.options import GenerationOptions
from redraft.sampler.accept import before, renoise

# B canvases, L positions, R numbers of a rule

# Above every probability: no token is taken for its own.
NEVER = 2.0
# R
NUMBERS = 5


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a step has found, of one canvas or of several.

    Attributes:
        tokens: the canvas that the model saw.
        argmax: the likeliest tokens.
        sample: tokens drawn from the model's distribution.
        entropy: nats.
        best_log_prob: nats, of `argmax`.
        fresh: ids that are drawn uniformly.
        held: positions that keep their tokens to the end: those that are pinned, and those that a sampler has held.
    """

    tokens: Int[Tensor, "... L"]
    argmax: Int[Tensor, "... L"]
    sample: Int[Tensor, "... L"]
    entropy: Float[Tensor, "... L"]
    best_log_prob: Float[Tensor, "... L"]
    fresh: Int[Tensor, "... L"]
    held: Bool[Tensor, "... L"]


@dataclass(frozen=True, kw_only=True)
class Move:
    """What a sampler makes of a canvas.

    Attributes:
        tokens: the next canvas. Positions that were held keep theirs, whatever stands here.
        accepted: positions whose token the next canvas has from this step, or from one that held it; for drafts.
        held: positions that keep their tokens from now on. A canvas that is held as a whole is done.
    """

    tokens: Int[Tensor, "... L"]
    accepted: Bool[Tensor, "... L"]
    held: Bool[Tensor, "... L"]


class Sampler(Protocol):
    """What is called with each step of a canvas, under `sampler=`.

    It is a function of what it is given: requests in flight share it, and what it remembered of one of them would
    reach the others. What is committed in the end is the argmax of the last step, whichever sampler went there.
    """

    def __call__(self, seen: Seen, step: int, max_denoising_steps: int) -> Move:
        """The next canvas of what a step has found in one of L positions; `step` counts from 0."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Positions that are not held are taken in ascending entropy while the entropies of those *before* sum to at most
    `bound` nats; or if their likeliest token has at least the probability `threshold`; or if fewer than `floor`
    positions come before them. The others become uniform random ids.

    What has no entropy comes before all others and takes no place of the floor: what has one token anyway, as behind
    the end of a budget.

    Attributes:
        bound: below 0, no position is taken for its entropy.
        threshold: above 1, none for its probability.
        floor: positions.
        sticky: whether what was taken is held.
        greedy: whether a position takes its likeliest token, not a draw.

    Source: the bound is Ben-Hamu et al., arXiv 2505.24857; the threshold is Fast-dLLM, arXiv 2505.22618, section 3.3,
    with mlx-vlm's renoising of the others.
    """

    bound: float
    threshold: float
    floor: int
    sticky: bool
    greedy: bool

    @property
    def numbers(self) -> tuple[float, float, float, float, float]:
        """A column of `move`'s rules. Probabilities are compared as logarithms, which the head has."""
        least = math.log(self.threshold) if self.threshold > 0 else -math.inf
        least = math.inf if self.threshold > 1 else least
        return self.bound, least, float(self.floor), float(self.sticky), float(self.greedy)

    def __call__(self, seen: Seen, step: int, max_denoising_steps: int) -> Move:
        """See `Sampler`; a rule does not look at the step."""
        column = torch.tensor(self.numbers, device=seen.entropy.device)[:, None]
        moved = move(column, Seen(**{name: values[None] for name, values in vars(seen).items()}))
        return Move(**{name: values[0] for name, values in vars(moved).items()})


def rule_of(options: GenerationOptions) -> Rule | None:
    """The rule that a request asks for; None where it brings a sampler of another kind."""
    if isinstance(options.sampler, Rule):
        # Beside it, temperature 0 leaves the schedule alone: see `GenerationOptions.schedule`.
        is_greedy = options.temperature == 0 and options.mode == "diffusion"
        return replace(options.sampler, greedy=True) if is_greedy else options.sampler
    if options.sampler == "entropy-bound":
        return Rule(bound=options.entropy_bound, threshold=NEVER, floor=options.floor, sticky=False, greedy=False)
    if options.sampler == "confidence":
        return Rule(bound=-1.0, threshold=options.threshold, floor=options.floor, sticky=True, greedy=True)
    return None


def move(rules: Float[Tensor, "R B"], seen: Seen) -> Move:
    """What each canvas's rule makes of it; see `Rule`. A position whose entropy is no number is not taken.

    Args:
        rules: `Rule.numbers` of each canvas.
        seen: [B, L] each.
    """
    bound, least, floor, sticky, greedy = rules[:, :, None]
    nats, count = before(torch.where(seen.held, 0.0, seen.entropy))
    sure = (nats <= bound) | (seen.best_log_prob >= least) | (count < floor)
    taken = sure & ~seen.held & torch.isfinite(seen.entropy)
    token = torch.where(greedy > 0, seen.argmax, seen.sample)
    return Move(
        tokens=torch.where(seen.held, seen.tokens, renoise(taken, token, seen.fresh)),
        accepted=seen.held | taken,
        held=seen.held | (taken & (sticky > 0)),
    )
