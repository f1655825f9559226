"""The tower's shape, read from the `vision_config` of Hugging Face's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.core.errors import CheckpointError, ImageError
from redraft.core.fields import Reader

MODEL_TYPE = "gemma4_vision"
_WIDEST, _MOST_PARTS, _LONGEST_TABLE = 2**20, 2**10, 2**20
# What the tower computes; whatever else a config asks for is refused.
_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False,),
}
# Two names of one rotation: older files call the axial one by the name of the usual one.
_ROPES = ("axial", "default")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Everything that shapes the tower; sizes in elements unless they say otherwise.

    Attributes:
        patch_size: side of a patch, in pixels.
        pooling_kernel_size: side of the square of patches that becomes one soft token.
        position_embedding_size: rows of the position table, for each axis: no picture has more patches along one.
        standardize: whether soft tokens are shifted and scaled by stored numbers.
        use_clipped_linears: whether inputs and results of the layers' products are clamped to stored bounds.
        text_hidden_size: what soft tokens are projected to.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    patch_size: int
    pooling_kernel_size: int
    position_embedding_size: int
    standardize: bool
    use_clipped_linears: bool
    rms_norm_eps: float
    rope_theta: float
    text_hidden_size: int

    @property
    def unit(self) -> int:
        """Side of what becomes one soft token, in pixels: those of a resized picture are multiples of it."""
        return self.patch_size * self.pooling_kernel_size

    def check_side(self, patches: int) -> None:
        """Refuses more patches along a side than there are places.

        Raises:
            ImageError: says how many.
        """
        if patches > self.position_embedding_size:
            raise ImageError(
                f"the picture has {patches} patches along a side, this checkpoint knows "
                f"{self.position_embedding_size} places: take fewer image tokens"
            )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], text_hidden_size: int, source: str = "config.json") -> VisionConfig:
        """Reads the `vision_config` of a whole config.

        Args:
            raw: the content of `config.json`.
            text_hidden_size: width of the text model.
            source: what errors call the file.

        Raises:
            CheckpointError: names the field that is missing or cannot be used.

        Source: transformers `Gemma4VisionConfig`, whose defaults these are.
        """
        part = raw.get("vision_config")
        if not isinstance(part, Mapping):
            raise CheckpointError(f"{source}: vision_config is missing")
        reader = Reader(part, source, prefix="vision_config.")
        _check_supported(reader)
        heads = reader.integer("num_attention_heads", 12, most=_MOST_PARTS)
        config = cls(
            hidden_size=reader.integer("hidden_size", 768, most=_WIDEST),
            intermediate_size=reader.integer("intermediate_size", 3072, most=_WIDEST),
            num_hidden_layers=reader.integer("num_hidden_layers", 16, most=_MOST_PARTS),
            num_attention_heads=heads,
            num_key_value_heads=reader.integer("num_key_value_heads", 12, most=_MOST_PARTS),
            head_dim=reader.integer("head_dim", 64, most=_WIDEST),
            patch_size=reader.integer("patch_size", 16, most=_MOST_PARTS),
            pooling_kernel_size=reader.integer("pooling_kernel_size", 3, most=_MOST_PARTS),
            position_embedding_size=reader.integer("position_embedding_size", 10240, most=_LONGEST_TABLE),
            standardize=reader.boolean("standardize", False),
            use_clipped_linears=reader.boolean("use_clipped_linears", False),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            rope_theta=Reader(
                reader.mapping("rope_parameters", {}), source, prefix="vision_config.rope_parameters."
            ).number("rope_theta", 100.0),
            text_hidden_size=text_hidden_size,
        )
        if config.head_dim % 4:
            raise reader.wrong("head_dim", "a multiple of 4: each axis turns pairs in its half", config.head_dim)
        if heads % config.num_key_value_heads:
            raise reader.wrong("num_key_value_heads", f"a divisor of {heads} heads", config.num_key_value_heads)
        if config.pooling_kernel_size == 1:
            # The reference takes padding for patches there, so that no two programs would agree on what is seen.
            raise reader.wrong("pooling_kernel_size", "at least 2", 1)
        return config


def _check_supported(reader: Reader) -> None:
    kind = reader.optional("model_type", MODEL_TYPE)
    if kind != MODEL_TYPE:
        raise reader.wrong("model_type", repr(MODEL_TYPE), kind)
    for name, allowed in _ONLY.items():
        if (value := reader.optional(name, allowed[0])) not in allowed:
            raise reader.wrong(name, " or ".join(map(repr, allowed)), value)
    rope = reader.mapping("rope_parameters", {})
    kind = rope.get("rope_type") or rope.get("type") or _ROPES[0]
    if kind not in _ROPES:
        raise reader.wrong("rope_parameters.rope_type", " or ".join(map(repr, _ROPES)), kind)
