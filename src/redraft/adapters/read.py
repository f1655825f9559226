"""Reads an adapter's files, ours and those of peft, TRL, Unsloth and NeMo. Every tensor is used once, or named."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from redraft.adapters.adapter import Adapter, Pair
from redraft.adapters.files import BASE, FOR_BOTH, ONE, SHARED, WEIGHTS, stacked_factors
from redraft.adapters.names import DECODER, ENCODER, Place, module_names, place_of
from redraft.adapters.peft_config import CONFIG, expected_modules, settings_of
from redraft.adapters.settings import Settings, adaptable, is_stack, path_of
from redraft.checkpoint.formats.header_checks import METADATA
from redraft.checkpoint.formats.headers import read_header
from redraft.core.errors import CheckpointError, ModelNotFoundError
from redraft.core.files import read_json
from redraft.model.config import ModelConfig

# The two factors of a module in a file, by "A" and "B", each with its name.
_Factors = dict[str, tuple[str, Tensor]]


def read_adapter(directory: str | os.PathLike[str], config: ModelConfig) -> Adapter:
    """The adapter in a directory; its factors are float32 and frozen.

    Names of both sides with equal tensors are one adapter; with other tensors two, one a mode. A decoder's alone are
    the canvas mode's, as peft trains them, unless the file says that it is for both.

    Args:
        directory: with `adapter_config.json` and `adapter_model.safetensors`.
        config: of the model that it is for.

    Raises:
        ModelNotFoundError: there is no such directory.
        CheckpointError: a file, a field or a tensor at fault, by name.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ModelNotFoundError(f"{directory} is no directory with an adapter")
    raw = read_json(directory / CONFIG)
    settings = settings_of(raw, directory / CONFIG)
    path = directory / WEIGHTS
    if not path.exists() and (directory / "adapter_model.bin").exists():
        raise CheckpointError(f"{directory}/adapter_model.bin is a pickle, which can run anything: save safetensors")
    header, _ = read_header(path)
    metadata = header.get(METADATA) or {}
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): download or copy it again") from None
    sides = _sides(tensors, path)
    found = {side: _by_parameter(modules, config, settings, path) for side, modules in sides.items()}
    _check_complete(found, raw, config, path)
    in_order = {
        side: {name: pairs[name] for name in adaptable(config) if name in pairs} for side, pairs in found.items()
    }
    return _joined(in_order, settings, metadata, path)


def _sides(tensors: Mapping[str, Tensor], path: Path) -> dict[str, list[tuple[Place, _Factors]]]:
    """The modules of each side with their factors."""
    found: dict[tuple[str, str, bool], tuple[Place, _Factors]] = {}
    for name, tensor in sorted(tensors.items()):
        place = place_of(name)
        if place is None:
            raise CheckpointError(f"{path}: tensor {name!r} belongs to no part of this model that can be adapted")
        _, factors = found.setdefault((place.side, place.module, place.inner), (place, {}))
        if place.factor in factors:
            raise CheckpointError(f"{path}: tensors {factors[place.factor][0]!r} and {name!r} are for one place")
        factors[place.factor] = (name, tensor)
    for _, factors in found.values():
        if len(factors) < 2:
            [(name, _)] = factors.values()
            other = name.replace("lora_A", "lora_B") if "A" in factors else name.replace("lora_B", "lora_A")
            raise CheckpointError(f"{path}: tensor {other!r} is missing, which {name!r} goes with")
    sides: dict[str, list[tuple[Place, _Factors]]] = {}
    for (side, _, _), module in found.items():
        sides.setdefault(side, []).append(module)
    if not sides:
        raise CheckpointError(f"{path} holds no tensors of an adapter")
    of_one = [m for side in ("denoise", "encode") for m in sides.get(side, []) if m[0].module.startswith("layers.")]
    if "both" in sides and of_one:
        name = of_one[0][1]["A"][0]
        raise CheckpointError(f"{path}: tensor {name!r} is one mode's, and others are both modes'")
    return sides


def _check_complete(
    found: Mapping[str, Mapping[str, Pair]], raw: Mapping[str, Any], config: ModelConfig, path: Path
) -> None:
    """Whether there is everything that the config gives factors, on the sides that the file has names of."""
    if "both" in found:
        return
    trees = {"denoise": DECODER, "encode": ENCODER}
    held = {trees[side] + path_of(name) for side, pairs in found.items() for name in pairs}
    possible = (full for name in adaptable(config) for full in module_names(path_of(name)))
    here = tuple(trees[side] for side in found)
    missing = expected_modules(raw, (full for full in possible if full.startswith(here))) - held
    if missing:
        raise CheckpointError(f"{path}: factors of {min(missing)!r} are missing, which {CONFIG} asks for")


def _by_parameter(
    modules: list[tuple[Place, _Factors]], config: ModelConfig, settings: Settings, path: Path
) -> dict[str, Pair]:
    found: dict[str, Pair] = {}
    for place, factors in modules:
        parameter, pair = _pair(place, factors, config, settings, path)
        if parameter in found:
            raise CheckpointError(f"{path}: tensor {factors['A'][0]!r} is for {parameter!r}, and so is another")
        found[parameter] = pair
    return found


def _pair(place: Place, factors: _Factors, config: ModelConfig, settings: Settings, path: Path) -> tuple[str, Pair]:
    """(the parameter that a module's factors change, these)."""
    (name, a), (other, b) = factors["A"], factors["B"]
    for tensor_name, tensor in ((name, a), (other, b)):
        if tensor.ndim != 2 or not tensor.is_floating_point():
            raise CheckpointError(
                f"{path}: tensor {tensor_name!r} is no factor: {tensor.dtype} of {list(tensor.shape)}"
            )
    parameter, shapes = f"{place.module}.weight", adaptable(config)
    a, b, count = a.float(), b.float(), 1
    if place.module.endswith(".experts"):
        parameter, turned = _stack_of(place, a, b, config, path, name)
        count = config.num_experts
        if len(a) % count or b.shape[1] % count:
            raise CheckpointError(f"{path}: tensor {name!r} of {list(a.shape)} does not divide into {count} experts")
        a, b = stacked_factors(a, b, count)
        if turned:
            a, b = b.transpose(1, 2).contiguous(), a.transpose(1, 2).contiguous()
    if parameter not in shapes:
        raise CheckpointError(f"{path}: tensor {name!r} belongs to {parameter!r}, which this model does not have")
    out, inner = shapes[parameter][-2:]
    tree = ENCODER if place.side == "encode" else DECODER
    rank = settings.rank_of(tree + path_of(parameter))
    if (a.shape[-1], b.shape[-2]) != (inner, out):
        raise CheckpointError(
            f"{path}: tensor {name!r} is for a matrix of {b.shape[-2]} x {a.shape[-1]}, the base's {parameter!r} is "
            f"{list(shapes[parameter])}: the adapter was made for another shape"
        )
    if a.shape[-2] != rank or b.shape[-1] != rank:
        raise CheckpointError(f"{path}: tensor {name!r} has rank {a.shape[-2]}, {CONFIG} says {rank}")
    return parameter, Pair(a, b, settings.scale(rank, tree + path_of(parameter))).requires_grad_(False)


def _stack_of(place: Place, a: Tensor, b: Tensor, config: ModelConfig, path: Path, name: str) -> tuple[str, bool]:
    """(the stack's parameter, whether its factors stand the other way round, as older peft wrote them)."""
    D, I = config.hidden_size, config.moe_intermediate_size
    # By (in, out), and where both stacks are adapted by their places.
    known = {"gate_up_proj": (D, 2 * I), "down_proj": (I, D)}
    if place.inner:
        known.pop("down_proj")
    sizes = (a.shape[1], len(b))
    for turned in (False, True):
        for stack, (inner, out) in known.items():
            if sizes == ((out, inner) if turned else (inner, out)):
                return f"{place.module}.{stack}", turned
    raise CheckpointError(
        f"{path}: tensor {name!r} is for matrices of {sizes[1]} x {sizes[0]}, the experts have {2 * I} x {D} and "
        f"{D} x {I}: the adapter was made for another shape"
    )


def _joined(found: dict[str, dict[str, Pair]], settings: Settings, metadata: Mapping[str, str], path: Path) -> Adapter:
    denoise, encode = dict(found.get("denoise", {})), dict(found.get("encode", {}))
    if "both" in found:
        denoise |= found["both"]
        encode = dict(found["both"])
    elif not encode and metadata.get(ONE) == FOR_BOTH:
        encode = {name: pair for name, pair in denoise.items() if not name.startswith("self_conditioning.")}
    elif not encode:
        warnings.warn(
            f"{path} has the decoder's names alone, so the causal mode runs without it, as under peft; tools that "
            "train one stack mean both modes",
            stacklevel=3,
        )
    for name, pair in encode.items():
        if name in denoise and pair.equals(denoise[name]):
            encode[name] = denoise[name]
    if metadata.get(SHARED) == "true":
        settings = replace(settings, shared_experts=True)
        for pair, factor in ((p, f) for n, p in denoise.items() if is_stack(n) for f in (_shared_factor(n),)):
            values = getattr(pair, factor).data
            if torch.equal(values, values[:1].expand_as(values)):
                setattr(pair, factor, torch.nn.Parameter(values[:1].clone(), requires_grad=False))
    return Adapter(settings=settings, encode=encode, denoise=denoise, base=_base(metadata, path))


def _shared_factor(parameter: str) -> str:
    return "a" if parameter.endswith("gate_up_proj") else "b"


def _base(metadata: Mapping[str, str], path: Path) -> dict[str, str]:
    try:
        found = json.loads(metadata.get(BASE) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(f"{path}: its metadata {BASE!r} is no fingerprint: {metadata[BASE]!r:.80}")
    return found
