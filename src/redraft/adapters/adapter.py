"""An adapter: a pair of factors for each stored tensor that it changes, used by both modes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from redraft.adapters.settings import Settings, is_stack, path_of, targeted
from redraft.kernels.low_rank import Factors
from redraft.model.config import ModelConfig

# Whose outer factor faces the residual stream: A of what reads it, B of what writes to it.
_READS, _WRITES = "experts.gate_up_proj", "experts.down_proj"


class Pair(nn.Module):
    """The factors of one tensor, in float32 or whatever dtype they are to be stepped in.

    Attributes:
        a: [rank, in], [experts, rank, in], or [1, rank, in] where experts share it.
        b: [out, rank], [experts, out, rank] or [1, out, rank].
        scale: what B A weighs.
    """

    def __init__(self, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Parameter(a), nn.Parameter(b), scale

    @property
    def factors(self) -> Factors:
        """What the kernels take."""
        return Factors(a=self.a, b=self.b, scale=self.scale)

    def equals(self, other: Pair) -> bool:
        """Whether both are the same change, bit for bit."""
        same = self.scale == other.scale and self.a.shape == other.a.shape and self.b.shape == other.b.shape
        return same and torch.equal(self.a, other.a) and torch.equal(self.b, other.b)


@dataclass(kw_only=True)
class Adapter:
    """Pairs by the parameters that they change, relative to the backbone.

    Attributes:
        settings: ranks and weights, as they are written.
        encode: of the causal mode.
        denoise: of the canvas mode; the same objects, where it is one adapter for both.
        base: fingerprint of the base that it was made for; empty where nobody knows.
    """

    settings: Settings
    encode: Mapping[str, Pair]
    denoise: Mapping[str, Pair]
    base: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def fresh(cls, settings: Settings, config: ModelConfig, seed: int = 0) -> Adapter:
        """One that changes nothing yet: A is uniform in +-1 / sqrt(in), B zero.

        Raises:
            OptionError: see `targeted`.
        """
        generator, pairs = torch.Generator().manual_seed(seed), {}
        for name, shape in targeted(settings, config).items():
            path = path_of(name)
            rank = settings.rank_of(path)
            *stacked, out, inner = shape
            shared = settings.shared_experts and is_stack(name)
            a = torch.empty(*([1] if shared and name.endswith(_READS) else stacked), rank, inner)
            b = torch.zeros(*([1] if shared and name.endswith(_WRITES) else stacked), out, rank)
            a.uniform_(-1 / math.sqrt(inner), 1 / math.sqrt(inner), generator=generator)
            pairs[name] = Pair(a, b, settings.scale(rank, path))
        return cls(settings=settings, encode=pairs, denoise=pairs)

    @property
    def is_one(self) -> bool:
        """Whether both modes have the same pairs; self-conditioning is the canvas mode's alone."""
        both = {n for n in (*self.encode, *self.denoise) if not n.startswith("self_conditioning.")}
        return all(self.encode.get(name) is self.denoise.get(name) for name in both)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every factor once, by a name that says which mode's it is where they differ."""
        seen: set[int] = set()
        for side, pairs in (("denoise", self.denoise), ("encode", self.encode)):
            for name, pair in pairs.items():
                if id(pair) not in seen:
                    seen.add(id(pair))
                    prefix = "" if self.is_one else f"{side}:"
                    yield f"{prefix}{name}.a", pair.a
                    yield f"{prefix}{name}.b", pair.b

    @property
    def num_parameters(self) -> int:
        """Of all factors."""
        return sum(parameter.numel() for _, parameter in self.named_parameters())
