"""A float checkpoint written in every published quantised form, named as the published ones are."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import quantised_matrices as matrices
from checkpoints import write_checkpoint
from quantised_gguf import GGUF_FORMATS, write_gguf

# Inner dimensions are multiples of 64, as groups need, and the hidden size is one of 256, as GGUF's K types need; those
# of the down projections are not, and fall back as in the published files.
SHAPE: dict[str, Any] = dict(
    hidden_size=256,
    intermediate_size=64,
    moe_intermediate_size=64,
    num_experts=4,
    num_hidden_layers=3,
    layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    head_dim=32,
    global_head_dim=64,
)
_ATTENTION = r"\.self_attn\.[qkvo]_proj$"
_MLP = r"layers\.\d+\.mlp\.\w+_proj$"
_EXPERTS = r"\.experts(\.\d+)?\.\w+_proj$"
_EVERY = f"{_ATTENTION}|{_MLP}|{_EXPERTS}"
_MLX = rf"{_EVERY}|router\.proj$|self_conditioning\.\w+_proj$|embed_tokens$"
_DECODER, _ENCODER = "model.decoder.", "model.encoder.language_model."


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a published form is made.

    Attributes:
        quantise: (matrix, module) -> its tensors by part, and the matrix that they stand for. Some take a `hessian`.
        modules: pattern of those that are quantised.
        rest: dtype of all others.
        config: of config.json's `quantization_config`.
        experts: "single" matrices, "fused" stacks, or "switch": stacks of gate and up apart.
        fused_suffix: what follows the name of a fused stack that is not quantised.
        owner: what the layers' names begin with.
        both_stacks: whether encoder and decoder are stored in full.
    """

    quantise: Callable[..., matrices.Made]
    modules: str
    rest: torch.dtype
    config: Mapping[str, Any] = field(default_factory=dict)
    experts: str = "single"
    fused_suffix: str = ""
    owner: str = _DECODER
    both_stacks: bool = False


def _compressed(preset: str, modules: str, group_size: int | None = None, rest: torch.dtype = torch.bfloat16) -> Recipe:
    scheme = matrices.scheme_of(preset, group_size)
    name = matrices.FORMAT_OF_PRESET[preset]
    return Recipe(
        quantise=lambda weight, _, **more: matrices.compressed(weight, preset, group_size, rest, **more),
        modules=modules,
        rest=rest,
        config={
            "quant_method": "compressed-tensors",
            "format": name,
            "quantization_status": "compressed",
            "config_groups": {"group_0": scheme.model_dump(mode="json", exclude_none=True) | {"format": name}},
            "ignore": ["lm_head", "re:.*embed.*", "re:.*router", "re:.*vision_tower.*", "re:.*self_conditioning.*"],
        },
    )


def _gptq(config: Mapping[str, Any], **layout: Any) -> Recipe:
    return Recipe(
        quantise=lambda weight, _, **more: matrices.gptq(weight, **layout, **more),
        modules=_EVERY,
        rest=torch.bfloat16,
        config={"bits": 4, "group_size": 64, **config},
        owner=_ENCODER,
    )


def _mlx(quantise: Callable[[Tensor, str], matrices.Made], config: Mapping[str, Any], **layout: Any) -> Recipe:
    return Recipe(quantise=quantise, modules=_MLX, rest=torch.bfloat16, config=config, **{"experts": "fused"} | layout)


def _mlx_bits(module: str, bits: int = 4) -> int:
    """The published 4-bit build keeps all but experts and self-conditioning at 8 bits."""
    return bits if re.search(r"\.experts|self_conditioning", module) else 8


def _mlx_mixed(weight: Tensor, module: str, bits: int = 4) -> matrices.Made:
    return matrices.mlx_affine(weight, _mlx_bits(module, bits))


def _recipes() -> dict[str, Callable[[], Recipe]]:
    affine = {"group_size": 64, "bits": 4, "mode": "affine"}
    auto_round = {"quant_method": "auto-round", "bits": 4, "group_size": 64, "sym": True}
    asymmetric = {"quant_method": "gptq", "sym": False}
    return {
        "fp8-dynamic": partial(_compressed, "FP8_DYNAMIC", _EVERY),
        "int8-dynamic": partial(_compressed, "INT8", _EVERY),
        "nvfp4": partial(_compressed, "NVFP4", f"{_MLP}|{_EXPERTS}"),
        "w4a16": partial(_compressed, "W4A16", f"{_ATTENTION}|{_EXPERTS}", 32, torch.float16),
        "w4a16-asymmetric": partial(_compressed, "W4A16_ASYM", _EVERY, 64),
        "w4a16-act-order": lambda: Recipe(
            quantise=lambda weight, _, **more: matrices.act_order_packed(weight, **more),
            modules=_EVERY,
            rest=torch.float16,
            config=_compressed("W4A16", _EVERY, 32).config,
        ),
        "modelopt-nvfp4": lambda: Recipe(
            quantise=lambda weight, _: matrices.modelopt_nvfp4(weight),
            modules=_EXPERTS,
            rest=torch.bfloat16,
            config={"quant_method": "modelopt", "quant_algo": "NVFP4"},
        ),
        "gptq": partial(_gptq, {"quant_method": "gptq", "sym": True}, stored_less=1, symmetric=True),
        "gptq-asymmetric": partial(_gptq, asymmetric, stored_less=1, symmetric=False),
        "gptq-v2": partial(_gptq, {**asymmetric, "checkpoint_format": "gptq_v2"}, stored_less=0, symmetric=False),
        "gptq-act-order": partial(
            _gptq, {**asymmetric, "desc_act": True}, stored_less=1, symmetric=False, act_order=True
        ),
        "auto-round": lambda: Recipe(
            quantise=lambda weight, _, **more: matrices.gptq(weight, stored_less=1, symmetric=True, **more),
            modules=_EVERY,
            rest=torch.bfloat16,
            config={**auto_round, "packing_format": "auto_round:auto_gptq"},
            both_stacks=True,
        ),
        "awq": lambda: Recipe(
            quantise=lambda weight, _, **more: matrices.awq(weight, **more),
            modules=_EVERY,
            rest=torch.float16,
            config={"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True},
        ),
        "mlx-bf16": lambda: Recipe(
            quantise=_mlx_mixed, modules=r"$^", rest=torch.bfloat16, experts="fused", fused_suffix=".weight"
        ),
        "mlx-4bit": partial(_mlx, _mlx_mixed, affine),
        "mlx-6bit": partial(_mlx, partial(_mlx_mixed, bits=6), {**affine, "bits": 6}),
        "mlx-1bit": partial(_mlx, partial(_mlx_mixed, bits=1), {**affine, "bits": 1}),
        "mlx-switch-glu": partial(_mlx, _mlx_mixed, affine, experts="switch"),
        "mlx-mxfp4": partial(_mlx, lambda w, _: matrices.mlx_float(w, 4), {"group_size": 32, "mode": "mxfp4"}),
        "mlx-mxfp8": partial(_mlx, lambda w, _: matrices.mlx_float(w, 8), {"group_size": 32, "mode": "mxfp8"}),
    }


_RECIPES = _recipes()
SAFETENSORS_FORMATS = tuple(_RECIPES)
FORMATS = (*SAFETENSORS_FORMATS, *GGUF_FORMATS)


def write_source(directory: Path) -> Path:
    """A random float checkpoint in the shape that every form can hold."""
    return write_checkpoint(directory, **SHAPE)


def write_in_format(
    directory_src: Path, directory_dst: Path, fmt: str, hessians: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Converts a checkpoint of floats, one file of safetensors, to a form of `FORMATS`.

    Args:
        directory_src, directory_dst: directories.
        fmt: the form.
        hessians: by module, for forms of 4-bit integers; see `matrices.compensated`. Others are rounded to nearest.

    Returns:
        What the form stands for by the format's own tools: every text tensor under its name in the source, quantised
        ones as float32. GGUF files hold no vision tensors.
    """
    directory_dst.mkdir(parents=True, exist_ok=True)
    tensors = load_file(directory_src / "model.safetensors")
    if fmt in GGUF_FORMATS:
        config = json.loads((directory_src / "config.json").read_text())
        return write_gguf(directory_dst / f"model-{fmt}.gguf", tensors, config, fmt)
    for file in directory_src.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, directory_dst / file.name)
    recipe = _RECIPES[fmt]()
    config = json.loads((directory_dst / "config.json").read_text())
    if recipe.config:
        config["quantization_config"] = dict(recipe.config)
    (directory_dst / "config.json").write_text(json.dumps(config, indent=2))
    written: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole, parts = _convert(name, tensor.float(), recipe, hessians or {})
        if not name.startswith("model.encoder.vision_tower") and "embed_vision" not in name:
            expected[name] = whole
        written |= parts
    save_file({name: part.contiguous() for name, part in _owned(written, recipe)}, directory_dst / "model.safetensors")
    return expected


def _convert(
    name: str, tensor: Tensor, recipe: Recipe, hessians: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """(what the tensor becomes, what a file holds of it)."""
    module = name.removesuffix(".weight")
    if not re.search(recipe.modules, module) or tensor.ndim < 2:
        rounded = tensor.to(recipe.rest)
        return rounded, {name + (recipe.fused_suffix if ".experts." in name else ""): rounded}
    if ".experts." not in name:
        more = {"hessian": hessians[module]} if module in hessians else {}
        made, whole = recipe.quantise(tensor, module, **more)
        return whole, {f"{module}.{part}": value for part, value in made.items()}
    return _convert_experts(name, tensor, recipe)


def _convert_experts(name: str, stack: Tensor, recipe: Recipe) -> tuple[Tensor, dict[str, Tensor]]:
    owner, _, matrix = name.rpartition(".")
    halves = ("gate_proj", "up_proj") if matrix == "gate_up_proj" else ("down_proj",)
    pieces = dict(zip(halves, stack.chunk(len(halves), dim=1), strict=True))
    held: dict[str, Tensor] = {}
    if recipe.experts != "single":
        named = (
            {name: stack} if recipe.experts == "fused" else {f"{owner}.switch_glu.{k}": v for k, v in pieces.items()}
        )
        wholes = []
        for module, piece in named.items():
            made, whole = recipe.quantise(piece, module)
            held |= {f"{module}.{part}": value for part, value in made.items()}
            wholes.append(whole)
        return torch.cat(wholes, dim=1), held
    experts = []
    for expert in range(len(stack)):
        wholes = []
        for half, piece in pieces.items():
            made, whole = recipe.quantise(piece[expert], f"{owner}.{expert}.{half}")
            held |= {f"{owner}.{expert}.{half}.{part}": value for part, value in made.items()}
            wholes.append(whole)
        experts.append(torch.cat(wholes))
    return torch.stack(experts), held


def _owned(tensors: Mapping[str, Tensor], recipe: Recipe) -> Iterator[tuple[str, Tensor]]:
    """The tensors under the names of the stack that the form stores."""
    for name, tensor in tensors.items():
        layer = name.startswith(f"{_DECODER}layers.") and not name.endswith("layer_scalar")
        tied = layer or name in (f"{_DECODER}embed_tokens.weight", f"{_DECODER}norm.weight")
        twin = name.replace(_DECODER, _ENCODER)
        if recipe.both_stacks and tied:
            yield twin, tensor.clone()
        yield twin if recipe.owner == _ENCODER and layer else name, tensor
