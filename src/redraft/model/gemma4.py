"""Gemma 4: DiffusionGemma's backbone as an autoregressive model, and which of its variants are run."""

from __future__ import annotations

from typing import Any

from redraft.core.errors import CheckpointError
from redraft.core.fields import Reader

GEMMA4, GEMMA4_TEXT = "gemma4", "gemma4_text"
NO_CANVAS = 'this checkpoint is autoregressive (gemma4); use mode="autoregressive"'

# Field: the reference's default, the one value that is run, what any other value means.
_VARIANTS: dict[str, tuple[Any, Any, str]] = {
    "enable_moe_block": (False, True, "a dense model without experts"),
    "hidden_size_per_layer_input": (256, 0, "embeddings that enter at every layer"),
    "num_kv_shared_layers": (0, 0, "layers that use the keys and values of others"),
    "use_double_wide_mlp": (False, False, "a dense MLP of double width"),
}


def check_variant(text: Reader) -> None:
    """Refuses what the backbone does not compute. A field that the file leaves out has the reference's default.

    Raises:
        CheckpointError: names the field.

    Source: transformers `Gemma4TextConfig`.
    """
    for name, (default, wanted, meaning) in _VARIANTS.items():
        value = text.optional(name, default)
        if value != wanted:
            origin = "" if text.optional(name, None) is not None else " by default"
            raise CheckpointError(
                f"{text.source}: {text.prefix}{name} is {value!r:.80}{origin} ({meaning}): "
                f"of Gemma 4, redraft runs {name}={wanted!r} only"
            )
