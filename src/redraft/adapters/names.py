"""What peft calls the tensors of an adapter, and what stands behind others' names.

`base_model.model.` + a module's path + `.lora_A.weight` [r, in] and `.lora_B.weight` [out, r]. transformers holds the
shared weights under an encoder and under a decoder, and peft makes modules of both.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from redraft.adapters.settings import GROUPS

PREFIX = "base_model.model."
DECODER, ENCODER = "model.decoder.", "model.encoder.language_model."
Side = Literal["encode", "denoise", "both"]
_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight")
# How tools name what both modes have: NeMo's stack, and Gemma 4's own trees.
_ONE_TREE = ("model.language_model.", "language_model.model.", "language_model.", "model.", "")
_TREES: tuple[tuple[Side, str], ...] = (
    ("denoise", DECODER),
    ("encode", ENCODER),
    *(("both", prefix) for prefix in _ONE_TREE),
)
_ENDS = tuple(end for group in GROUPS.values() for end in group if not end.startswith("experts."))
_BLOCK = re.compile(r"layers\.\d+\.(?P<end>.+)")


class Place(NamedTuple):
    """Where a tensor of a file belongs.

    Attributes:
        side: whose mode it is of.
        module: path of ours, relative to the backbone; of experts the module that holds both stacks.
        inner: of experts, whether it stands under `base_layer`.
        factor: "A" or "B".
    """

    side: Side
    module: str
    inner: bool
    factor: str


def place_of(name: str) -> Place | None:
    """What a tensor's name says; None where no adapter of this model has such a one."""
    found = _FACTOR.fullmatch(name)
    if found is None:
        return None
    path = found["path"].removeprefix(PREFIX)
    inner = path.endswith(".base_layer")
    path = path.removesuffix(".base_layer")
    for side, prefix in _TREES:
        if not path.startswith(prefix):
            continue
        module = path.removeprefix(prefix)
        if module.startswith("self_conditioning.") and module in _ENDS and not inner:
            return None if side == "encode" else Place("denoise", module, inner, found["factor"])
        block = _BLOCK.fullmatch(module)
        if block is not None and (block["end"] == "experts" or (block["end"] in _ENDS and not inner)):
            return Place(side, module, inner, found["factor"])
    return None


def module_names(module: str) -> tuple[str, ...]:
    """transformers' names of a module of ours: under the decoder, and the encoder where it has it too."""
    if module.startswith("self_conditioning."):
        return (DECODER + module,)
    return DECODER + module, ENCODER + module
