"""A checkpoint in a wider shape that computes the same function: what is new is zero.

Formats with large groups need inner dimensions that a small model does not have.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from redraft.model.config import LayerConfig, ModelConfig

# D hidden size, I inner size of a dense or expert MLP, H query heads, K key-value heads, G queries a key-value head


def widen(source: Path, directory: Path, multiple: int) -> Path:
    """Writes a float checkpoint whose matrices all have a multiple of `multiple` columns.

    A norm over D' instead of D elements, of which the new ones are zero, finds a mean that is too small. So the
    residual is sqrt(D' / D) as large: embeddings are that by themselves, norms that write to it keep their weights,
    what they norm is that much larger, and norms that read from it divide by it. The epsilon stays what it was.
    """
    directory.mkdir(parents=True)
    for file in source.glob("*.json*"):
        (directory / file.name).write_bytes(file.read_bytes())
    config, raw = ModelConfig.from_directory(source), json.loads((source / "config.json").read_text())
    text = raw["text_config"]
    D, wide = config.hidden_size, _up(config.hidden_size, multiple)
    heads = config.num_attention_heads
    while any(heads * layer.head_dim % multiple for layer in config.layers):
        heads += 1
    # 1.0 where D is a multiple already: every tensor keeps its bits.
    grown = (wide / D) ** 0.5
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        found = re.search(r"decoder\.layers\.(\d+)\.(.*)", name)
        if found and "self_attn" in name:
            tensors[name] = _attention(tensor, found[2], config, config.layers[int(found[1])], heads, wide, grown)
        elif name.startswith("model.decoder.") and tensor.ndim:
            tensors[name] = _other(tensor, name, config, multiple, wide, grown)
        else:
            tensors[name] = tensor
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    text |= {"hidden_size": wide, "num_attention_heads": heads}
    for key in ("intermediate_size", "moe_intermediate_size"):
        text[key] = _up(text[key], multiple)
    for index, layer in enumerate(config.layers):
        if layer.window is not None:
            text["num_key_value_heads"] = _grouped(config, layer, heads)[0]
        else:
            text["num_global_key_value_heads"] = _grouped(config, layer, heads)[0]
            text["per_layer_config"][str(index)]["num_key_value_heads"] = text["num_global_key_value_heads"]
    (directory / "config.json").write_text(json.dumps(raw, indent=2))
    return directory


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _grouped(config: ModelConfig, layer: LayerConfig, heads: int) -> tuple[int, int]:
    """(K, G) with so many query heads: more groups of as many, or as many groups of more."""
    group = config.num_attention_heads // layer.num_key_value_heads
    if heads % group == 0:
        return heads // group, group
    if heads % layer.num_key_value_heads:
        raise ValueError(f"{heads} heads neither keep groups of {group} nor {layer.num_key_value_heads} of them")
    return layer.num_key_value_heads, heads // layer.num_key_value_heads


def _attention(
    tensor: Tensor, name: str, config: ModelConfig, layer: LayerConfig, heads: int, wide: int, grown: float
) -> Tensor:
    old, size = layer.num_key_value_heads, layer.head_dim
    keys, group = _grouped(config, layer, heads)
    if name.endswith(("k_proj.weight", "v_proj.weight")):
        return _padded(tensor.unflatten(0, (old, size)), keys, size, wide).flatten(0, 1)
    if name.endswith("q_proj.weight"):
        return _padded(tensor.unflatten(0, (old, -1, size)), keys, group, size, wide).flatten(0, 2)
    if name.endswith("o_proj.weight"):
        return _padded(_times(tensor, grown).unflatten(1, (old, -1, size)), wide, keys, group, size).flatten(1)
    return tensor


def _other(tensor: Tensor, name: str, config: ModelConfig, multiple: int, wide: int, grown: float) -> Tensor:
    """What lies outside attention: only axes of D or I elements grow."""
    if name.endswith("experts.gate_up_proj"):
        inner = _up(config.moe_intermediate_size, multiple)
        return _padded(tensor.unflatten(1, (2, -1)), len(tensor), 2, inner, wide).flatten(1, 2)
    if re.search(r"\.(gate|up)_proj\.weight$", name):
        return _padded(tensor, _up(config.intermediate_size, multiple), wide)
    if "down_proj" in name:
        return _padded(_times(tensor, grown), *tensor.shape[:-2], wide, _up(tensor.shape[-1], multiple))
    if re.search(r"(input_layernorm|pre_feedforward_layernorm(_2)?|pre_norm|decoder\.norm)\.weight$", name):
        return _padded(_times(tensor, 1 / grown), wide)
    return _padded(tensor, *tensor.shape[:-1], wide) if tensor.shape[-1] == config.hidden_size else tensor


def _times(tensor: Tensor, factor: float) -> Tensor:
    return tensor if factor == 1 else (tensor.to(torch.float64) * factor).float()


def _padded(tensor: Tensor, *shape: int) -> Tensor:
    """With zeros behind each axis."""
    behind = [(0, new - old) for old, new in zip(tensor.shape, shape, strict=True)]
    return F.pad(tensor, [size for pair in reversed(behind) for size in pair])
