"""A float checkpoint as a GGUF file, by the gguf package; K types, which it cannot make, by naive quantisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from torch import Tensor

# What each file uses, what for the embedding and the values, and what where rows are no multiple of 256.
_TYPES = {
    "gguf-bf16": (Type.BF16, Type.BF16, Type.BF16),
    "gguf-q8_0": (Type.Q8_0, Type.Q8_0, Type.Q8_0),
    "gguf-q6_k": (Type.Q6_K, Type.Q6_K, Type.Q8_0),
    "gguf-q5_k_m": (Type.Q5_K, Type.Q6_K, Type.Q5_1),
    "gguf-q4_k_m": (Type.Q4_K, Type.Q6_K, Type.Q5_0),
}
GGUF_FORMATS = tuple(_TYPES)
ARCHITECTURE = "diffusion-gemma"
CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"

_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "post_feedforward_layernorm_1.weight": "post_ffw_norm_1.weight",
    "pre_feedforward_layernorm_2.weight": "pre_ffw_norm_2.weight",
    "post_feedforward_layernorm_2.weight": "post_ffw_norm_2.weight",
    "post_feedforward_layernorm.weight": "post_ffw_norm.weight",
    "router.proj.weight": "ffn_gate_inp.weight",
    "router.scale": "ffn_gate_inp.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "experts.down_proj": "ffn_down_exps.weight",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "layer_scalar": "layer_output_scale.weight",
}
_TOP = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "self_conditioning.pre_norm.weight": "self_cond_pre_norm.weight",
    "self_conditioning.gate_proj.weight": "self_cond_gate.weight",
    "self_conditioning.up_proj.weight": "self_cond_up.weight",
    "self_conditioning.down_proj.weight": "self_cond_down.weight",
}


def gguf_name(name: str) -> str | None:
    """What GGUF calls a tensor; None for those of vision."""
    if name.startswith("model.encoder.language_model.layers."):
        return f"blk.{name.split('.')[4]}.enc_layer_output_scale.weight"
    if not name.startswith("model.decoder."):
        return None
    rest = name.removeprefix("model.decoder.")
    if rest in _TOP:
        return _TOP[rest]
    _, layer, inner = rest.split(".", 2)
    return f"blk.{layer}.{_LAYER[inner]}"


def write_gguf(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    fmt: str,
    *,
    rename: Callable[[str], str | None] = lambda name: name,
    split_experts: bool = False,
) -> dict[str, Tensor]:
    """Writes the text tensors of a checkpoint.

    Args:
        path: of the file.
        tensors: of the checkpoint.
        config: its config.json.
        fmt: of `GGUF_FORMATS`.
        rename: from a name in the file to the one it is written under; None leaves it out.
        split_experts: whether gate and up are apart.

    Returns:
        What the package reads from it, by the checkpoint's names.
    """
    text = config["text_config"]
    writer = GGUFWriter(path, ARCHITECTURE)
    _add_metadata(writer, text, config["canvas_length"])
    expected = {}
    for name, tensor in tensors.items():
        file_name = gguf_name(name)
        if file_name is None:
            continue
        chosen = _type_of(file_name, tensor, fmt)
        pieces = {file_name: tensor.float()}
        if split_experts and "gate_up_exps" in file_name:
            gate, up = tensor.float().chunk(2, dim=1)
            pieces = {file_name.replace("gate_up", "gate"): gate, file_name.replace("gate_up", "up"): up}
        read = []
        for piece_name, piece in pieces.items():
            blocks = quantise(piece.contiguous().numpy(), chosen)
            if (final := rename(piece_name)) is not None:
                writer.add_tensor(final, blocks, raw_dtype=chosen)
            read.append(torch.from_numpy(np.array(gguf.quants.dequantize(blocks, chosen))).reshape(piece.shape))
        expected[name] = torch.cat(read, dim=1) if len(read) > 1 else read[0]
    full = next(layer["head_dim"] for layer in text["per_layer_config"].values())
    turning = round(full // 2 * _rope(text, "full_attention")["partial_rotary_factor"])
    frequencies = np.full(full // 2, 1e30, np.float32)
    frequencies[:turning] = 1.0
    writer.add_tensor("rope_freqs.weight", frequencies)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _rope(text: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What turns in layers of a kind: as the config has it, or by the model's defaults."""
    defaults = {"full_attention": 1e6, "sliding_attention": 1e4}
    given = (text.get("rope_parameters") or {}).get(kind, {})
    return {"rope_theta": defaults[kind], "partial_rotary_factor": 0.25} | given


def _type_of(name: str, tensor: Tensor, fmt: str) -> Type:
    most, more, fallback = _TYPES[fmt]
    if tensor.ndim < 2 or "ffn_gate_inp" in name:
        return Type.F32
    if tensor.shape[-1] % 256:
        return fallback
    return more if name == "token_embd.weight" or "attn_v" in name else most


def _add_metadata(writer: GGUFWriter, text: Mapping[str, Any], canvas_length: int) -> None:
    types = text["layer_types"]
    full = text["per_layer_config"][str(types.index("full_attention"))]
    sliding = [kind == "sliding_attention" for kind in types]
    writer.add_type("model")
    writer.add_block_count(len(types))
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_expert_count(text["num_experts"])
    writer.add_expert_used_count(text["top_k_experts"])
    writer.add_expert_feed_forward_length(text["moe_intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv([text["num_key_value_heads"] if s else full["num_key_value_heads"] for s in sliding])
    writer.add_key_length(full["head_dim"])
    writer.add_value_length(full["head_dim"])
    writer.add_uint32(f"{ARCHITECTURE}.attention.key_length_swa", text["head_dim"])
    writer.add_uint32(f"{ARCHITECTURE}.attention.value_length_swa", text["head_dim"])
    writer.add_sliding_window(text["sliding_window"])
    writer.add_sliding_window_pattern(sliding)
    writer.add_causal_attention(False)
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_rope_freq_base(_rope(text, "full_attention")["rope_theta"])
    writer.add_float32(f"{ARCHITECTURE}.rope.freq_base_swa", _rope(text, "sliding_attention")["rope_theta"])
    writer.add_final_logit_softcapping(30.0)
    writer.add_uint32("diffusion.canvas_length", canvas_length)
    writer.add_quantization_version(2)
    add_tokenizer(writer, *vocabulary(text["vocab_size"]))


def vocabulary(size: int) -> tuple[list[str], list[int], list[str]]:
    """(tokens, their types, merges), filled up to a size."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<turn|>", "<|tool_response>", '<|"|>', "\n\n"]
    types = [3, 3, 3, 3, 3, 3, 4, 4, 4]
    pieces = [
        *"abcdehlorwt",
        "\u2581",
        "\n",
        "he",
        "ll",
        "hell",
        "hello",
        "\u2581w",
        "or",
        "\u2581wor",
        "\u2581world",
        "ld",
    ]
    merges = ["h e", "l l", "he ll", "hell o", "\u2581 w", "o r", "\u2581w or", "l d", "\u2581wor ld"]
    tokens += pieces
    types += [1] * len(pieces)
    spelled = [f"<0x{byte:02X}>" for byte in (0xC3, 0xA9)]
    tokens += spelled
    types += [6] * len(spelled)
    unused = [f"<unused{index}>" for index in range(size - len(tokens))]
    return tokens + unused, types + [3] * len(unused), merges


def add_tokenizer(writer: GGUFWriter, tokens: list[str], types: list[int], merges: list[str]) -> None:
    """Writes a vocabulary as converters do."""
    writer.add_tokenizer_model("gemma4")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for role, index in (("bos", 2), ("eos", 1), ("unk", 3), ("pad", 0), ("mask", 4)):
        getattr(writer, f"add_{role}_token_id")(index)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def quantise(values: np.ndarray, kind: Type) -> np.ndarray:
    """Blocks [..., bytes], by the package or, for K types, by minimum and maximum."""
    if kind in (Type.Q4_K, Type.Q5_K):
        return _min_and_max(values, 4 if kind == Type.Q4_K else 5)
    return _q6_k(values) if kind == Type.Q6_K else gguf.quants.quantize(values, kind)


def _min_and_max(values: np.ndarray, bits: int) -> np.ndarray:
    """Q4_K and Q5_K: eight groups of 32, scale and minimum in 6 bits each."""
    groups = values.reshape(-1, 8, 32)
    lowest, highest = np.minimum(groups.min(-1), 0), np.maximum(groups.max(-1), 0)
    scale = (highest - lowest) / (2**bits - 1)
    d = (scale.max(-1) / 63).astype(np.float16)
    d_min = ((-lowest).max(-1) / 63).astype(np.float16)
    sc = np.clip(np.round(scale / d.astype(np.float32)[:, None]), 1, 63).astype(np.uint8)
    mn = np.clip(np.round(-lowest / np.maximum(d_min.astype(np.float32), 1e-12)[:, None]), 0, 63).astype(np.uint8)
    step = d.astype(np.float32)[:, None] * sc
    start = d_min.astype(np.float32)[:, None] * mn
    q = np.clip(np.round((groups + start[..., None]) / step[..., None]), 0, 2**bits - 1).astype(np.uint8)
    scales = np.concatenate(
        [
            sc[:, :4] | (sc[:, 4:] >> 4) << 6,
            mn[:, :4] | (mn[:, 4:] >> 4) << 6,
            (sc[:, 4:] & 15) | (mn[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
    low = q & 15
    nibbles = (low[:, 0::2] | low[:, 1::2] << 4).reshape(len(q), 128)
    high = [((q >> 4) << np.arange(8, dtype=np.uint8)[:, None]).sum(1).astype(np.uint8)] if bits == 5 else []
    parts = [d[:, None].view(np.uint8), d_min[:, None].view(np.uint8), scales, *high, nibbles]
    return np.concatenate(parts, axis=1).reshape(*values.shape[:-1], -1)


def _q6_k(values: np.ndarray) -> np.ndarray:
    """Q6_K: sixteen groups of 16 around zero."""
    groups = values.reshape(-1, 16, 16)
    scale = np.abs(groups).max(-1) / 31
    d = (scale.max(-1) / 127).astype(np.float16)
    sc = np.clip(np.round(scale / d.astype(np.float32)[:, None]), 1, 127).astype(np.int8)
    step = d.astype(np.float32)[:, None] * sc
    q = (np.clip(np.round(groups / step[..., None]), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.concatenate([q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4], axis=-1)
    high = ((q >> 4) << (2 * np.arange(4, dtype=np.uint8))[:, None]).sum(2).astype(np.uint8)
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), sc.view(np.uint8), d[:, None].view(np.uint8)]
    return np.concatenate(parts, axis=1).reshape(*values.shape[:-1], -1)
