"""Modules that stand before frozen ones and add what an adapter's pairs make of the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from redraft.adapters.adapter import Pair
from redraft.kernels.low_rank import adapted_experts
from redraft.kernels.widened import Stack
from redraft.model.feedforward import Experts
from redraft.placement.quantized import FrozenExperts


class Mode:
    """Which mode a forward is in, for an adapter that has other pairs in each.

    Attributes:
        causal: as the backbone is told: of all rows, or [T] of each.
    """

    def __init__(self) -> None:
        self.causal: bool | Bool[Tensor, "T"] = False


class Dropout:
    """Zeroes inputs of pairs where gradients are on.

    Attributes:
        rate: the share of them.
        seed: which ones; a step sets its own. The n-th product after that always draws the same.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self._generator = rate, torch.Generator()
        self._seed = 0

    def begin(self, seed: int) -> None:
        """From here on what is drawn follows from this seed."""
        self._seed = seed
        self._generator.manual_seed(seed)

    def of(self, x: Float[Tensor, "... K"]) -> Float[Tensor, "... K"]:
        """The rows with some of their numbers zeroed and the others made larger."""
        if not self.rate or not torch.is_grad_enabled():
            return x
        if self._generator.device != x.device:
            self._generator = torch.Generator(x.device).manual_seed(self._seed)
        kept = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self._generator)
        return x * kept / (1 - self.rate)


class AdaptedLinear(nn.Module):
    """A linear layer with a pair, or one for each mode."""

    def __init__(
        self, base: nn.Module, encode: Pair | None, denoise: Pair | None, mode: Mode, dropout: Dropout
    ) -> None:
        super().__init__()
        self.base, self.encode, self.denoise = base, encode, denoise
        self._mode, self._dropout = mode, dropout

    def forward(self, x: Float[Tensor, "... K"]) -> Float[Tensor, "... R"]:
        out = self.base(x)

        def added(pair: Pair | None) -> Tensor:
            return out if pair is None else out + pair.factors.of(self._dropout.of(x))

        return _by_mode(self._mode, self.encode, self.denoise, added)


class AdaptedExperts(nn.Module):
    """All experts of a layer with pairs for one of their stacks or both."""

    def __init__(
        self,
        base: Experts | FrozenExperts,
        encode: tuple[Pair | None, Pair | None],
        denoise: tuple[Pair | None, Pair | None],
        mode: Mode,
    ) -> None:
        super().__init__()
        self.base = base
        self.encode = nn.ModuleList(pair for pair in encode if pair is not None)
        self.denoise = nn.ModuleList(pair for pair in denoise if pair is not None)
        same = all(left is right for left, right in zip(encode, denoise, strict=True))
        self._pairs = {"encode": encode, "denoise": encode if same else denoise}
        self._mode = mode

    @property
    def stacks(self) -> tuple[Stack, Stack]:
        """Gate-up and down as they lie."""
        if isinstance(self.base, Experts):
            return self.base.gate_up_proj, self.base.down_proj
        return self.base.gate_up, self.base.down

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        base = self.base
        count = len(base.gate_up_proj) if isinstance(base, Experts) else base.num_experts

        def mixed(pairs: tuple[Pair | None, Pair | None]) -> Tensor:
            first, second = (None if pair is None else pair.factors for pair in pairs)
            return adapted_experts(x, index, weight, self.stacks, count, first, second)

        return _by_mode(self._mode, self._pairs["encode"], self._pairs["denoise"], mixed)


def _by_mode(mode: Mode, encode: Any, denoise: Any, result: Callable[[Any], Tensor]) -> Tensor:
    if encode is denoise:
        return result(encode)
    if isinstance(mode.causal, Tensor):
        return torch.where(mode.causal[:, None], result(encode), result(denoise))
    return result(encode if mode.causal else denoise)
