"""What checkpoints call the tensors of the text model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redraft.model.config import ModelConfig

_SCALAR = re.compile(r"layers\.(\d+)\.encoder_layer_scalar")


@dataclass(frozen=True, kw_only=True)
class Names:
    """One way to name tensors.

    Attributes:
        text: what the text model's names begin with.
        causal: what those of the causal mode's own tensors, its layer scalars, begin with.
        passed_through: beginnings of parts that are not run: accounted for, skipped, and copied through on save.
    """

    text: str
    causal: str
    passed_through: tuple[str, ...]

    def of(self, parameter: str) -> str:
        """The checkpoint's name of one of our parameters or buffers (relative to `Backbone`)."""
        if _SCALAR.fullmatch(parameter):
            return self.causal + parameter.replace("encoder_layer_scalar", "layer_scalar")
        return self.text + parameter

    def owner(self, name: str) -> str:
        """The tensor that this one is tied to; itself if to none."""
        if name == "lm_head.weight":
            return self.text + "embed_tokens.weight"
        if name.startswith(self.causal) and not name.endswith("layer_scalar"):
            return self.text + name.removeprefix(self.causal)
        return name


_DIFFUSION = Names(
    text="model.decoder.",
    causal="model.encoder.language_model.",
    passed_through=("model.encoder.vision_tower.", "model.encoder.embed_vision."),
)
# Gemma 4 stores one layer scalar. It is the causal mode's, and there is no other.
_INSIDE = "model.language_model."
_TOWERS = ("model.vision_tower.", "model.embed_vision.", "model.audio_tower.", "model.embed_audio.")
_GEMMA4 = Names(text=_INSIDE, causal=_INSIDE, passed_through=_TOWERS)
_GEMMA4_TEXT = Names(text="model.", causal="model.", passed_through=_TOWERS)


# Which parts of a checkpoint each of a config's towers is.
_TOWER_PARTS = {
    "vision_config": ("vision_tower", "embed_vision"),
    "audio_config": ("audio_tower", "embed_audio"),
}


def without_absent_towers(config: Mapping[str, Any], stored: Iterable[str]) -> dict[str, Any]:
    """A config that names no tower of which none of these tensors is: whoever builds what is named would miss it."""
    parts = {part for name in stored for part in name.split(".")[:3]}
    absent = [key for key, own in _TOWER_PARTS.items() if key in config and parts.isdisjoint(own)]
    return {**config, **dict.fromkeys(absent)}


def names_for(config: ModelConfig, stored: Iterable[str] = ()) -> Names:
    """The names that a checkpoint has.

    Args:
        config: its config.
        stored: names in its files; they decide which of Gemma 4's two ways it is. Without any, the config does.
    """
    if config.has_canvas:
        return _DIFFUSION
    stored = list(stored)
    inside = any(name.startswith(_INSIDE) for name in stored) if stored else "text_config" in config.raw
    return _GEMMA4 if inside else _GEMMA4_TEXT
