"""The model's shape, read from and written to Hugging Face's `config.json` in both published forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redraft.core.errors import CheckpointError
from redraft.core.fields import Reader
from redraft.core.files import read_json
from redraft.model.gemma4 import GEMMA4, GEMMA4_TEXT, check_variant
from redraft.model.layer_config import FULL, SLIDING, LayerConfig, read_layers

MODEL_TYPE = "diffusion_gemma"
_READ = (MODEL_TYPE, GEMMA4, GEMMA4_TEXT)
# Beyond any model there will be, and small enough that no product of them overflows.
_MOST_TOKENS, _WIDEST, _MOST_PARTS = 2**24, 2**20, 2**16


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
        vocabulary = reader.integer("vocab_size", most=_MOST_TOKENS)
        config = cls(
            vocab_size=vocabulary,
            hidden_size=reader.integer("hidden_size", most=_WIDEST),
            intermediate_size=reader.integer("intermediate_size", most=_WIDEST),
            num_attention_heads=reader.integer("num_attention_heads", most=_MOST_PARTS),
            num_experts=reader.integer("num_experts", most=_MOST_PARTS),
            top_k_experts=reader.integer("top_k_experts"),
            moe_intermediate_size=reader.integer("moe_intermediate_size", most=_WIDEST),
            canvas_length=top.integer("canvas_length", 256, most=_MOST_PARTS) if has_canvas else 1,
            max_position_embeddings=reader.integer("max_position_embeddings"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            final_logit_softcapping=reader.number("final_logit_softcapping", 30.0 if has_canvas else None),
            bos_token_id=next(iter(reader.token_ids("bos_token_id", vocabulary)), None),
            eos_token_ids=reader.token_ids("eos_token_id", vocabulary),
            pad_token_id=next(iter(reader.token_ids("pad_token_id", vocabulary)), None),
            # Gemma 4 says whether its full layers share keys and values; DiffusionGemma's always do.
            layers=read_layers(reader, shared=has_canvas or reader.boolean("attention_k_eq_v", False)),
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
        text["layer_types"] = [FULL if layer.window is None else SLIDING for layer in self.layers]
        shapes = {(layer.head_dim, layer.num_key_value_heads) for layer in self.layers if layer.window is None}
        if len(shapes) == 1:
            text["global_head_dim"], text["num_global_key_value_heads"] = next(iter(shapes))
        usual = (text["head_dim"], text["num_key_value_heads"])
        text["per_layer_config"] = {
            str(i): {"head_dim": layer.head_dim, "num_key_value_heads": layer.num_key_value_heads}
            for i, layer in enumerate(self.layers)
            if layer.window is None or (layer.head_dim, layer.num_key_value_heads) != usual
        }
        return raw


def check_model_type(raw: Mapping[str, Any], source: str) -> str:
    """The kind of model that a config is of.

    Raises:
        CheckpointError: none that is read here.
    """
    model_type = raw.get("model_type")
    if model_type not in _READ:
        known = ", ".join(map(repr, _READ))
        raise CheckpointError(f"{source}: model_type is {model_type!r}, redraft reads {known}")
    return model_type


def _readers(raw: Mapping[str, Any], source: str) -> tuple[Reader, Reader]:
    """The fields of the text model and those at the top; the same where the text model is all there is."""
    model_type = check_model_type(raw, source)
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
    if (scaling := top.optional("rope_scaling", None)) is not None:
        raise CheckpointError(f"{source}: rope_scaling={scaling!r:.60} is not supported")
    if not text.optional("tie_word_embeddings", True) or not top.optional("tie_word_embeddings", True):
        raise CheckpointError(f"{source}: tie_word_embeddings=false is not supported")
