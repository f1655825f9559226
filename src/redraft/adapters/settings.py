"""What an adapter changes, and how much room it has: targets, ranks, weights of its products."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from redraft.core.checks import at_least, flag, shown
from redraft.core.errors import OptionError
from redraft.model.config import ModelConfig
from redraft.model.model import shapes_of

# The modules of each group, as their paths in a layer, or in the model, end.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "dense": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    "experts": ("experts.gate_up_proj", "experts.down_proj"),
    "router": ("router.proj",),
    "self_conditioning": (
        "self_conditioning.gate_proj",
        "self_conditioning.up_proj",
        "self_conditioning.down_proj",
    ),
}
_TIED = "it is the head and the soft embedding as well, and no file that peft writes says so"
_FROZEN = "it stays as it is in every adapter: tools disagree on whose mode it is"
_REFUSED_TARGETS = {
    "embed_tokens": _TIED,
    "embeddings": _TIED,
    "embedding": _TIED,
    "lm_head": _TIED,
    "all-linear": "in peft it takes the vision tower with it: name groups",
    "per_expert_scale": _FROZEN,
    "layer_scalar": _FROZEN,
    "norm": _FROZEN,
}
_CHANGES_BASE = "it changes the base, and the adapter would fit no published checkpoint"
# Kinds of LoRA, each with why it is not this one.
REFUSED_KINDS: Mapping[str, str] = {
    "dora": "its norms are those of the widened weights, which a quantised base does not hold, and peft has it for no "
    "experts",
    "pissa": _CHANGES_BASE,
    "loftq": _CHANGES_BASE,
    "olora": _CHANGES_BASE,
    "corda": _CHANGES_BASE,
    "lora_ga": _CHANGES_BASE,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an adapter is made of. W becomes W + s B A with A [rank, in] and B [out, rank].

    Attributes:
        targets: groups ("attention", "dense", "experts", "router", "self_conditioning"), or ends of the paths of
            modules in them ("q_proj", "mlp.down_proj").
        rank: of the factors, unless `rank_pattern` has another.
        alpha: s is alpha / rank, or with `rslora` alpha / sqrt(rank).
        rank_pattern, alpha_pattern: other values by group, or by a regular expression of how a module's path ends, such
            as "layers\\\\.0\\\\.self_attn\\\\.q_proj"; the first that matches counts.
        dropout: share of the inputs of a product's first factor that is zeroed in training. Not for experts.
        rslora: see `alpha`.
        shared_experts: experts have the factor that faces the residual stream in common: 28% of the parameters.
        kind: "lora". Others are refused by name.
    """

    targets: Sequence[str] = ("attention", "dense")
    rank: int = 16
    alpha: float = 32.0
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    dropout: float = 0.0
    rslora: bool = False
    shared_experts: bool = False
    kind: str = "lora"

    def __post_init__(self) -> None:
        """Raises OptionError, which names the field."""
        if (reason := REFUSED_KINDS.get(str(self.kind).lower())) is not None:
            raise OptionError(f"an adapter of kind {self.kind!r} is not offered: {reason}; kind 'lora' is")
        if self.kind != "lora":
            raise OptionError(f"an adapter's kind must be 'lora', got {shown(self.kind)}")
        at_least("rank", self.rank, 1, int)
        _positive("alpha", self.alpha)
        for field_name in ("rank_pattern", "alpha_pattern"):
            if not isinstance(getattr(self, field_name), Mapping):
                raise OptionError(f"{field_name} must be a mapping, got {shown(getattr(self, field_name))}")
        for name, value in self.rank_pattern.items():
            at_least(f"rank_pattern[{name!r}]", value, 1, int)
        for name, value in self.alpha_pattern.items():
            _positive(f"alpha_pattern[{name!r}]", value)
        if not 0 <= at_least("dropout", self.dropout, 0, float) < 1:
            raise OptionError(f"dropout must be below 1, got {shown(self.dropout)}")
        flag("rslora", self.rslora)
        flag("shared_experts", self.shared_experts)

    def scale(self, rank: int, path: str) -> float:
        """s of the module at this path."""
        alpha = _by_pattern(self.alpha_pattern, path, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def rank_of(self, path: str) -> int:
        """The rank of the module at this path."""
        return int(_by_pattern(self.rank_pattern, path, self.rank))


def _positive(name: str, value: object) -> None:
    if at_least(name, value, 0, float) == 0:
        raise OptionError(f"{name} must be above 0, got {shown(value)}")


def _by_pattern(pattern: Mapping[str, float], path: str, usual: float) -> float:
    """Source: peft `get_pattern_key`; groups are ours."""
    for key, value in pattern.items():
        if key in GROUPS and path.endswith(GROUPS[key]):
            return value
        if key not in GROUPS and matches(key, path):
            return value
    return usual


def matches(key: str, path: str) -> bool:
    """Whether a regular expression is a path, or the end of one that begins behind a dot.

    Raises:
        OptionError: it is no regular expression.
    """
    try:
        return re.match(rf"(.*\.)?({key})$", path) is not None
    except re.error as error:
        raise OptionError(f"{shown(key)} is no regular expression: {error}") from None


def path_of(parameter: str) -> str:
    """The path that stands for a parameter in targets and patterns: its module's, but an expert stack's own."""
    return parameter.removesuffix(".weight")


def is_stack(parameter: str) -> bool:
    """Whether a parameter holds the matrices of all experts."""
    return parameter.endswith(GROUPS["experts"])


def adaptable(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter that an adapter can change, [out, in] or [experts, out, in], by our names."""
    return dict(_adaptable(config))


# A file's every tensor is compared with them, and they are found by making the model, without its weights.
@lru_cache(maxsize=4)
def _adaptable(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    ends = tuple(end for group in GROUPS.values() for end in group)
    return {name: shape for name, shape in shapes_of(config).items() if path_of(name).endswith(ends)}


def targeted(settings: Settings, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters that an adapter changes.

    Raises:
        OptionError: a target that is unknown or refused, a pattern that no target matches, dropout beside experts.
    """
    if isinstance(settings.targets, str) or not settings.targets:
        raise OptionError(f"targets must be a list of groups or modules, got {shown(settings.targets)}")
    possible, found = adaptable(config), {}
    for target in settings.targets:
        if (reason := _REFUSED_TARGETS.get(str(target).rpartition(".")[2])) is not None:
            raise OptionError(f"target {target!r} is not offered: {reason}")
        ends = GROUPS.get(target, (target,))
        chosen = {name: shape for name, shape in possible.items() if _ends(path_of(name), ends)}
        if not chosen:
            known = ", ".join(map(repr, GROUPS))
            raise OptionError(f"target {shown(target)} is no module here: give {known}, or the end of a module's path")
        found |= chosen
    for key in (*settings.rank_pattern, *settings.alpha_pattern):
        if not any(_by_pattern({key: 1.0}, path_of(name), 0.0) for name in found):
            raise OptionError(f"pattern {shown(key)} matches none of the targets")
    if settings.dropout and any(map(is_stack, found)):
        raise OptionError(
            "dropout cannot go with experts, which peft refuses to load: set the recipe's dropout, of branches"
        )
    return {name: found[name] for name in possible if name in found}


def _ends(path: str, ends: Sequence[str]) -> bool:
    return any(path == end or path.endswith(f".{end}") for end in ends)
