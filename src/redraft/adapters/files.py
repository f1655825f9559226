"""An adapter on disk, in peft's layout.

`adapter_model.safetensors` and `adapter_config.json` have both modes' names; `merge_config/adapter_config.json` leaves
the encoder's out, for `PeftModel.from_pretrained(base, directory, config=...)` and `merge_and_unload`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from redraft.adapters.adapter import Adapter, Pair
from redraft.adapters.names import PREFIX, module_names
from redraft.adapters.peft_config import CONFIG, config_of
from redraft.adapters.settings import adaptable, is_stack, path_of
from redraft.checkpoint.formats.writer import write_safetensors
from redraft.core.errors import CheckpointError
from redraft.core.files import flush, replace_text
from redraft.model.config import ModelConfig

WEIGHTS, MERGING = "adapter_model.safetensors", "merge_config"
# In the file's own metadata, which others pass over.
ONE, BASE, SHARED = "redraft_modes", "redraft_base", "redraft_shared_experts"
FOR_BOTH = "one adapter for both modes"


def write_adapter(
    adapter: Adapter, config: ModelConfig, directory: str | Path, *, base: str = "", dtype: torch.dtype = torch.float32
) -> None:
    """Writes an adapter so that peft loads it; each file replaces the one that is there once it is on disk.

    Args:
        adapter: one for both modes.
        config: of its base.
        directory: made if missing.
        base: the base model's name or directory, for whoever loads it.
        dtype: what to store.

    Raises:
        CheckpointError: it has other pairs in each mode, or the directory cannot be written.
    """
    if not adapter.is_one:
        raise CheckpointError("an adapter with other factors in each mode is not written: keep the files it came from")
    directory, pairs = Path(directory), adapter.denoise
    metadata = {"format": "pt", ONE: FOR_BOTH, BASE: json.dumps(dict(adapter.base), sort_keys=True)}
    if adapter.settings.shared_experts:
        metadata[SHARED] = "true"
    tensors = {name: tensor.detach().to("cpu", dtype) for name, tensor in _tensors(pairs, config).items()}
    possible = adaptable(config)
    try:
        (directory / MERGING).mkdir(parents=True, exist_ok=True)
        fresh = directory / f"{WEIGHTS}.part"
        write_safetensors(fresh, tensors, metadata)
        os.replace(fresh, directory / WEIGHTS)
        for folder, merging in ((directory / MERGING, True), (directory, False)):
            made = config_of(pairs, adapter.settings, possible, base, merging=merging)
            replace_text(folder / CONFIG, json.dumps(made, indent=2) + "\n")
        flush(directory)
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be written: {error.strerror or error}") from None


def _tensors(pairs: Mapping[str, Pair], config: ModelConfig) -> dict[str, Tensor]:
    """Both factors of every pair by peft's names, under the decoder and the encoder."""
    found = {}
    for name, pair in pairs.items():
        module, a, b = path_of(name), pair.a, pair.b
        if is_stack(name):
            module, _, stack = module.rpartition(".")
            # peft wraps in the order of the module's parameters: gate-up is the inner one, if both are adapted.
            if stack == "gate_up_proj" and f"{module}.down_proj" in pairs:
                module += ".base_layer"
            a, b = flat_factors(pair, config.num_experts)
        for full in module_names(module):
            found[f"{PREFIX}{full}.lora_A.weight"] = a
            found[f"{PREFIX}{full}.lora_B.weight"] = b
    return found


def flat_factors(pair: Pair, experts: int) -> tuple[Tensor, Tensor]:
    """(A [E r, in], B [out, r E]) of a stack, as peft lays them: expert e has A's rows e r + j, B's columns j E + e."""
    a, b = (factor.expand(experts, -1, -1) for factor in (pair.a, pair.b))
    return a.flatten(0, 1), b.permute(1, 2, 0).flatten(1)


def stacked_factors(a: Tensor, b: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """`flat_factors` undone: ([E, r, in], [E, out, r])."""
    return a.view(experts, -1, a.shape[1]), b.view(len(b), -1, experts).permute(2, 0, 1).contiguous()
