"""What GGUF files call the model's tensors.

Source: llama.cpp's converter of DiffusionGemma; the aliases are earlier revisions' and its loader's second spellings.
"""

from __future__ import annotations

import re

# What stands for something that is derived: the turning frequencies of full layers.
DERIVED = frozenset({"rope_freqs.weight"})
_DECODER, _ENCODER = "model.decoder.", "model.encoder.language_model."
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_OUTSIDE = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "norm.weight",
    "self_cond_pre_norm.weight": "self_conditioning.pre_norm.weight",
    "self_cond_norm.weight": "self_conditioning.pre_norm.weight",
    "self_cond_gate.weight": "self_conditioning.gate_proj.weight",
    "self_cond_up.weight": "self_conditioning.up_proj.weight",
    "self_cond_down.weight": "self_conditioning.down_proj.weight",
}
_INSIDE = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_gate_exps.weight": "experts.gate_proj",
    "ffn_up_exps.weight": "experts.up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "layer_output_scale.weight": "layer_scalar",
}
_ENCODER_SCALARS = ("enc_layer_output_scale.weight", "enc_layer_out_scale.weight")


def hugging_face_name(name: str) -> str | None:
    """The tensor's name in transformers; gate and up apart are `experts.gate_proj` and `experts.up_proj`.

    None if the model has no such tensor.
    """
    if name == "output.weight":
        return "lm_head.weight"
    if name in _OUTSIDE:
        return _DECODER + _OUTSIDE[name]
    block = _BLOCK.fullmatch(name)
    if block is None:
        return None
    layer, rest = block.groups()
    if rest in _ENCODER_SCALARS:
        return f"{_ENCODER}layers.{layer}.layer_scalar"
    return f"{_DECODER}layers.{layer}.{_INSIDE[rest]}" if rest in _INSIDE else None


def decoder_twin(encoder_scalar: str) -> str:
    """The decoder's scalar of the same layer."""
    return encoder_scalar.replace(_ENCODER, _DECODER)


def encoder_scalar(layer: int) -> str:
    """The encoder's scalar of a layer."""
    return f"{_ENCODER}layers.{layer}.layer_scalar"
