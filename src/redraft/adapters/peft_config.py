"""`adapter_config.json`, peft's description of an adapter: what of it counts here, and what is refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redraft.adapters.adapter import Pair
from redraft.adapters.names import DECODER, ENCODER, module_names
from redraft.adapters.settings import REFUSED_KINDS, Settings, is_stack, path_of
from redraft.core.checks import shown
from redraft.core.errors import CheckpointError, OptionError

CONFIG = "adapter_config.json"
# Fields that say nothing of what tensors mean, or what their names say as well.
_WITHOUT_EFFECT = {
    "task_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version", "auto_mapping",
    "target_modules", "target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern",
    "megatron_config", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "qalora_group_size", "runtime_config", "ensure_weight_tying", "init_lora_weights", "peft_type", "r", "lora_alpha",
    "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora",
}  # fmt: skip
_REFUSED = {
    "use_dora": REFUSED_KINDS["dora"],
    "bias": "this model has no biases",
    "lora_bias": "this model has no biases",
    "modules_to_save": "whole modules are no adapter: merge where it was made",
    "layer_replication": "it is another model than the base",
    "trainable_token_indices": "the embedding is the head and the soft embedding as well",
    "fan_in_fan_out": "no matrix of this model lies that way",
    "alora_invocation_tokens": "an adapter that begins in the middle of a prompt is not offered",
}
_USUAL = {"bias": "none"}


def settings_of(raw: Mapping[str, Any], path: Path) -> Settings:
    """What a config says of ranks and weights; patterns as peft has them.

    Raises:
        CheckpointError: a field that cannot be honoured, by name, with the reason.
    """
    if raw.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: peft_type is {shown(raw.get('peft_type'))}, redraft reads 'LORA'")
    for name, value in raw.items():
        if not value or value == _USUAL.get(name):
            continue
        if name in _REFUSED:
            raise CheckpointError(f"{path}: {name}={shown(value)} cannot be honoured: {_REFUSED[name]}")
        if name not in _WITHOUT_EFFECT:
            raise CheckpointError(f"{path}: {name}={shown(value)} is an option that redraft does not know")
    start = str(raw.get("init_lora_weights", True)).lower()
    for kind, reason in REFUSED_KINDS.items():
        if start.startswith(kind):
            raise CheckpointError(
                f"{path}: init_lora_weights={start!r} cannot be honoured: {reason}; save it as plain LoRA where it was "
                "made"
            )
    try:
        return Settings(
            rank=raw.get("r", 8),
            alpha=raw.get("lora_alpha", 8),
            rank_pattern=raw.get("rank_pattern") or {},
            alpha_pattern=raw.get("alpha_pattern") or {},
            dropout=raw.get("lora_dropout") or 0.0,
            rslora=bool(raw.get("use_rslora")),
        )
    except OptionError as error:
        raise CheckpointError(f"{path}: {error}") from None


def expected_modules(raw: Mapping[str, Any], modules: Iterable[str]) -> set[str]:
    """Which modules a config gives pairs, of these by transformers' names; stacks by their own names.

    Source: peft `check_target_module_exists` and `_inject_parameters`.
    """
    wanted, parameters = raw.get("target_modules") or [], raw.get("target_parameters") or []
    excluded, layers = raw.get("exclude_modules") or [], raw.get("layers_to_transform")
    numbers = {layers} if isinstance(layers, int) else set(layers or ())
    found = set()
    for name in modules:
        if is_stack(name):
            if any(name == one or name.endswith(f".{one}") for one in parameters):
                found.add(name)
            continue
        if _listed(excluded, name) or not _listed(wanted, name):
            continue
        number = re.search(r"\.layers\.(\d+)\.", name)
        if not numbers or isinstance(wanted, str) or (number is not None and int(number[1]) in numbers):
            found.add(name)
    return found


def _listed(names: str | Sequence[str], name: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in names)


def config_of(
    pairs: Mapping[str, Pair], settings: Settings, possible: Iterable[str], base: str, *, merging: bool
) -> dict[str, Any]:
    """What peft has to be told of these pairs.

    Args:
        pairs: by parameter.
        settings: of the adapter.
        possible: every parameter that the model has for an adapter.
        base: the base model's name.
        merging: whether for merging: transformers' encoder holds the same tensors, and peft would add to them twice.
    """
    ranks = {name: pair.a.shape[-2] for name, pair in pairs.items()}
    power = 0.5 if settings.rslora else 1.0
    alphas = {name: round(pair.scale * ranks[name] ** power, 9) for name, pair in pairs.items()}
    # Patterns for stacks work, but peft says that they do not: what stacks have is the usual, where there are any.
    usual = [name for name in pairs if is_stack(name)] or list(pairs)
    rank, alpha = (Counter(values[name] for name in usual).most_common(1)[0][0] for values in (ranks, alphas))
    linear = [name for name in pairs if not is_stack(name)]
    stacks = [name for name in pairs if is_stack(name)]
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _number(alpha),
        "lora_dropout": settings.dropout,
        "use_rslora": settings.rslora,
        "bias": "none",
        "rank_pattern": _pattern(ranks, rank),
        "alpha_pattern": _pattern(alphas, alpha),
        "target_modules": _regex(linear, set(possible), merging=merging),
    }
    if stacks:
        both = [module_names(name) for name in stacks]
        ends = sorted({_end(name) for name in stacks})
        if merging:
            config["target_parameters"] = [decoder for decoder, _ in both]
        elif len(stacks) == sum(_end(name) in ends for name in possible if is_stack(name)):
            config["target_parameters"] = ends
        else:
            config["target_parameters"] = [name for names in both for name in names]
    if merging:
        config["exclude_modules"] = r".*\.encoder\..*"
    return config


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _end(path: str) -> str:
    """What a path has in every layer."""
    return re.sub(r"^layers\.\d+\.", "", path)


def _pattern(values: Mapping[str, float], usual: float) -> dict[str, float | int]:
    """Values other than the usual one by regular expressions: of layers apart, then of a path's end in all others."""
    by_end: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        by_end.setdefault(_end(path_of(name)), {})[path_of(name)] = value
    alone, together = {}, {}
    for end, paths in by_end.items():
        common = Counter(paths.values()).most_common(1)[0][0]
        alone |= {re.escape(path): _number(value) for path, value in paths.items() if value != common}
        if common != usual:
            together[re.escape(end)] = _number(common)
    # The first that matches counts.
    return alone | together


def _regex(linear: Sequence[str], possible: set[str], *, merging: bool) -> str | list[str]:
    """One expression for all modules: names alone would take those of the vision tower as well."""
    layers: dict[str, list[str]] = {}
    alone = [re.escape(DECODER + path_of(name)) for name in linear if not name.startswith("layers.")]
    for name in linear:
        if name.startswith("layers."):
            layers.setdefault(_end(path_of(name)), []).append(name.split(".")[1])
    by_layers: dict[str, list[str]] = {}
    for end, numbers in layers.items():
        everywhere = len(numbers) == sum(_end(path_of(name)) == end for name in possible)
        by_layers.setdefault(r"\d+" if everywhere else f"({'|'.join(numbers)})", []).append(re.escape(end))
    trees = re.escape(DECODER) if merging else f"({re.escape(DECODER)}|{re.escape(ENCODER)})"
    blocks = [rf"{trees}layers\.{numbers}\.({'|'.join(ends)})" for numbers, ends in by_layers.items()]
    return "|".join(blocks + alone) or []
