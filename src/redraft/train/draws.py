"""What a step draws at random, all of it on the host, so that a seed means the same noise on every device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

T_MARGIN = 1e-4

# B canvases, L positions of a canvas, R canvases that get a signal


def corrupt(
    canvas: Int[Tensor, "B L"],
    vocab_size: int,
    generator: torch.Generator,
    draws: int = 1,
    noise_power: float = 1.0,
    *,
    spread: bool = False,
) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B"]]:
    """(noisy canvas, t): each token is replaced with probability t, perhaps by itself.

    With several `draws`, every run of that many rows is one example, and its t are spread evenly: u, u + 1 / draws,
    ... modulo 1, each uniform by itself before `noise_power` (see `Objective`) bends it. With `spread` the t of all
    canvases are spread so, in random order.
    """
    if spread:
        start = torch.rand(1, generator=generator)
        steps = torch.randperm(len(canvas), generator=generator) / len(canvas)
    else:
        start = torch.rand(len(canvas) // draws, generator=generator).repeat_interleave(draws)
        steps = torch.arange(draws).repeat(len(canvas) // draws) / draws
    t = (1 - (1 - (start + steps) % 1) ** noise_power) * (1 - 2 * T_MARGIN) + T_MARGIN
    replaced = torch.rand(canvas.shape, generator=generator) < t[:, None]
    noise = torch.randint(vocab_size, canvas.shape, generator=generator)
    return torch.where(replaced, noise, canvas), t


@dataclass(frozen=True)
class StepDraws:
    """Of one step of a first pass or a rollout.

    Attributes:
        uniform: picks the samples.
        fresh: replaces what is not accepted; None outside rollouts.
        lot: decides whether the step takes over from the one that is kept so far.
    """

    uniform: Float[Tensor, "R L"]
    fresh: Int[Tensor, "R L"] | None
    lot: Float[Tensor, "R"]


@dataclass(frozen=True)
class Ahead:
    """Which canvases get a signal before their scored pass, and what that takes.

    Attributes:
        rows: their places in the batch.
        temperature: of each one's soft embedding.
        steps: in order; more than one in a rollout alone.
    """

    rows: Int[Tensor, "R"]
    temperature: Float[Tensor, "R"]
    steps: list[StepDraws]

    @classmethod
    def drawn(
        cls,
        shape: tuple[int, int],
        vocab_size: int,
        generator: torch.Generator,
        *,
        self_conditioning: float,
        soft_temperature: tuple[float, float],
        rollout: float,
        rollout_steps: int,
    ) -> Ahead | None:
        """The draws for canvases of this shape [B, L]; None where no row is chosen. See `Objective` for the others."""
        rows = (torch.rand(shape[0], generator=generator) < self_conditioning).nonzero()[:, 0]
        if len(rows) == 0:
            return None
        rolling = bool(torch.rand((), generator=generator) < rollout)
        count = int(torch.randint(rollout_steps, (), generator=generator)) + 1 if rolling else 1
        low, high = soft_temperature
        temperature = (low + (high - low) * torch.rand(shape[0], generator=generator))[rows]
        steps = []
        for _ in range(count):
            uniform = torch.rand(len(rows), shape[1], generator=generator)
            fresh = torch.randint(vocab_size, uniform.shape, generator=generator) if rolling else None
            steps.append(StepDraws(uniform, fresh, torch.rand(len(rows), generator=generator)))
        return cls(rows, temperature, steps)
