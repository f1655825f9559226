"""The model's shape, read from and written to Hugging Face's `config.json` in both published forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redraft.core.errors import CheckpointError
from redraft.core.files import read_json
from redraft.model.fields import Reader
from redraft.model.gemma4 import GEMMA4, GEMMA4_TEXT, check_variant

MODEL_TYPE = "diffusion_gemma"
_READ = (MODEL_TYPE, GEMMA4, GEMMA4_TEXT)
_SLIDING, _FULL = "sliding_attention", "full_attention"
_DEFAULT_ROPE: dict[str, dict[str, Any]] = {
    _SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    _FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
}


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """The shape of one layer's attention. `window` is None where the layer sees everything."""

    num_key_value_heads: int
    head_dim: int
    window: int | None
    rope_theta: float
    partial_rotary_factor: float
    shares_key_value: bool

    @property
    def rope_key(self) -> tuple[float, float, int]:
        """Layers with equal keys share their rotary tables."""
        return (self.rope_theta, self.partial_rotary_factor, self.head_dim)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that shapes the text model; sizes in elements, lengths in tokens.

    Attributes:
        canvas_length: of the checkpoint; 1 where there is no canvas mode and each forward writes one token.
        has_canvas: whether the checkpoint can denoise. Gemma 4 has the same layers and cannot.
        raw: the content of `config.json`.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_experts: int
    top_k_experts: int
    moe_intermediate_size: int
    canvas_length: int
    max_position_embeddings: int
    rms_norm_eps: float
    final_logit_softcapping: float
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    layers: tuple[LayerConfig, ...]
    has_canvas: bool = True
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def embed_scale(self) -> float:
        """Factor on every embedding row: sqrt(hidden_size)."""
        return self.hidden_size**0.5

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
        """Reads `config.json`'s content, flat keys or `per_layer_config`.

        Raises:
            CheckpointError: names the field that is missing or cannot be used.
        """
        reader, top = _readers(raw, source)
        _check_supported(reader, top)
        has_canvas = raw["model_type"] == MODEL_TYPE
        if not has_canvas:
            check_variant(reader)
        config = cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=reader.integer("hidden_size"),
            intermediate_size=reader.integer("intermediate_size"),
            num_attention_heads=reader.integer("num_attention_heads"),
            num_experts=reader.integer("num_experts"),
            top_k_experts=reader.integer("top_k_experts"),
            moe_intermediate_size=reader.integer("moe_intermediate_size"),
            canvas_length=top.integer("canvas_length", 256) if has_canvas else 1,
            max_position_embeddings=reader.integer("max_position_embeddings"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            final_logit_softcapping=reader.number("final_logit_softcapping", 30.0 if has_canvas else None),
            bos_token_id=next(iter(reader.token_ids("bos_token_id")), None),
            eos_token_ids=reader.token_ids("eos_token_id"),
            pad_token_id=next(iter(reader.token_ids("pad_token_id")), None),
            # Gemma 4 says whether its full layers share keys and values; DiffusionGemma's always do.
            layers=_layers(reader, shared=has_canvas or reader.boolean("attention_k_eq_v", False)),
            has_canvas=has_canvas,
            raw=json.loads(json.dumps(dict(raw))),
        )
        if config.top_k_experts > config.num_experts:
            raise CheckpointError(
                f"{source}: top_k_experts ({config.top_k_experts}) exceeds num_experts ({config.num_experts})"
            )
        return config

    @classmethod
    def from_directory(cls, directory: Path) -> ModelConfig:
        """Reads `directory/config.json`.

        Raises:
            CheckpointError: the file is missing or is no JSON object, or a field cannot be used.
        """
        path = Path(directory) / "config.json"
        return cls.from_dict(read_json(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """`config.json` in both forms at once: transformers reads `per_layer_config`, others the flat keys."""
        raw = json.loads(json.dumps(self.raw))
        text = raw.get("text_config", raw)
        text["layer_types"] = [_FULL if layer.window is None else _SLIDING for layer in self.layers]
        full = {i: layer for i, layer in enumerate(self.layers) if layer.window is None}
        shapes = {(layer.head_dim, layer.num_key_value_heads) for layer in full.values()}
        if len(shapes) == 1:
            text["global_head_dim"], text["num_global_key_value_heads"] = next(iter(shapes))
        text["per_layer_config"] = {
            str(i): {"head_dim": layer.head_dim, "num_key_value_heads": layer.num_key_value_heads}
            for i, layer in full.items()
        }
        return raw


def _readers(raw: Mapping[str, Any], source: str) -> tuple[Reader, Reader]:
    """The fields of the text model and those at the top; the same where the text model is all there is."""
    model_type = raw.get("model_type")
    if model_type not in _READ:
        known = ", ".join(map(repr, _READ))
        raise CheckpointError(f"{source}: model_type is {model_type!r}, redraft reads {known}")
    top = Reader(raw, source, prefix="")
    if model_type == GEMMA4_TEXT:
        return top, top
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        raise CheckpointError(f"{source}: text_config is missing")
    kind = text.get("model_type") or GEMMA4_TEXT
    if model_type == GEMMA4 and kind != GEMMA4_TEXT:
        raise CheckpointError(
            f"{source}: model_type {GEMMA4!r} needs a text_config of model_type {GEMMA4_TEXT!r}, got {kind!r}"
        )
    return Reader(text, source, prefix="text_config."), top


def _check_supported(text: Reader, top: Reader) -> None:
    source = text.source
    bidirectional = text.optional("use_bidirectional_attention", "vision")
    if bidirectional != "vision":
        raise CheckpointError(f"{source}: use_bidirectional_attention={bidirectional!r} is not supported")
    if text.optional("attention_bias", False):
        raise CheckpointError(f"{source}: attention_bias=true is not supported")
    activation = text.optional("hidden_activation", "gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        raise CheckpointError(f"{source}: hidden_activation {activation!r} is not supported")
    if not text.optional("tie_word_embeddings", True) or not top.optional("tie_word_embeddings", True):
        raise CheckpointError(f"{source}: tie_word_embeddings=false is not supported")


def _layers(reader: Reader, *, shared: bool) -> tuple[LayerConfig, ...]:
    count = reader.integer("num_hidden_layers")
    # The reference's rule when the file names no pattern: every sixth layer, and always the last, is full.
    default_types = [_FULL if (i + 1) % 6 == 0 or i == count - 1 else _SLIDING for i in range(count)]
    types = reader.optional("layer_types", default_types)
    if not isinstance(types, list) or len(types) != count or any(kind not in (_SLIDING, _FULL) for kind in types):
        raise CheckpointError(
            f"{reader.source}: {reader.prefix}layer_types must name {_SLIDING!r} or {_FULL!r} "
            f"for each of the {count} layers"
        )
    if types[-1] != _FULL:
        # The reference makes the last layer full whatever the file says.
        raise CheckpointError(f"{reader.source}: {reader.prefix}layer_types must end with {_FULL!r}")
    return tuple(
        _layer(reader, kind, _shape(reader, i, kind, shared), shared and kind == _FULL) for i, kind in enumerate(types)
    )


def _shape(reader: Reader, index: int, kind: str, shared: bool) -> tuple[int, int]:
    """(key-value heads, head size) of one layer, from either form."""
    heads, head_dim = reader.integer("num_key_value_heads"), reader.integer("head_dim")
    if reader.fields.get("per_layer_config") is not None:
        own = reader.part("per_layer_config", str(index))
        return own.integer("num_key_value_heads", heads), own.integer("head_dim", head_dim)
    if kind == _SLIDING:
        return heads, head_dim
    # The reference's rule: full layers that have their own values have as many heads as the others.
    heads = reader.integer("num_global_key_value_heads", heads) if shared else heads
    return heads, reader.integer("global_head_dim")


def _layer(reader: Reader, kind: str, shape: tuple[int, int], shares_key_value: bool) -> LayerConfig:
    default = _DEFAULT_ROPE[kind]
    rope = reader.part("rope_parameters", kind)
    given = rope.fields or default
    rope_type = given.get("rope_type", default["rope_type"])
    if rope_type not in ("default", "proportional"):
        raise CheckpointError(f"{reader.source}: rope_type {rope_type!r} of {kind} is not supported")
    turn = Reader(given, reader.source, rope.prefix)
    partial = turn.number("partial_rotary_factor", 1.0)
    if rope_type == "proportional" and (factor := turn.number("factor", 1.0)) != 1.0:
        raise CheckpointError(f"{reader.source}: {rope.prefix}factor={factor} is not supported")
    if rope_type == "default" and partial != 1.0:
        raise CheckpointError(f"{reader.source}: partial_rotary_factor needs rope_type 'proportional'")
    heads, head_dim = shape
    if reader.integer("num_attention_heads") % heads:
        raise CheckpointError(f"{reader.source}: num_attention_heads is no multiple of {heads} key-value heads")
    if head_dim % 2:
        raise CheckpointError(f"{reader.source}: head size {head_dim} is odd, rotary embedding needs pairs")
    return LayerConfig(
        num_key_value_heads=heads,
        head_dim=head_dim,
        window=reader.integer("sliding_window") if kind == _SLIDING else None,
        rope_theta=rope.number("rope_theta", default["rope_theta"]),
        partial_rotary_factor=partial,
        shares_key_value=shares_key_value,
    )
