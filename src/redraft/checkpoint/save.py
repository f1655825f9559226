"""From a model to a checkpoint: safetensors in Hugging Face layout."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from redraft.checkpoint.names import names_for, without_absent_towers
from redraft.checkpoint.source import Source
from redraft.checkpoint.vision import vision_tensors
from redraft.core.errors import CheckpointError
from redraft.core.files import flush, replace_text
from redraft.model.model import DiffusionGemma, shapes_of
from redraft.vision.tower import Vision

# What may stand beside weights and goes with them, each for a reason. Whatever else is there stays: measured figures
# (mini's presets.json) and model cards speak of the weights that they were made with.
_OF_TEXT = (  # ids, and the prompts that the weights were trained on
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
# Ends of a turn, which are the vocabulary's, the schedule of its canvas, and when that is done.
_OF_SAMPLING = ("generation_config.json", "redraft.json")
_OF_VISION = ("preprocessor_config.json", "processor_config.json")  # what a tower sees; without one nothing reads them
# The calls that these weights know, rows that they never learned, and what they say of themselves.
_BY_HEART = ("tools.json", "held_out.jsonl", "introduction.json")
SHARD_BYTES = 5 * 10**9


def save_checkpoint(
    model: DiffusionGemma,
    directory: str | Path,
    *,
    source: str | Path | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    same_weights: bool = True,
    vision: Vision | None = None,
) -> None:
    """Writes the model in Hugging Face layout; transformers loads it.

    Each file replaces the one that is there when it is on disk, so that a process that is killed leaves a model whole.

    Args:
        model: the model.
        directory: made if missing.
        source: a checkpoint directory whose other tensors (vision) and files (tokenizer, template, generation
            config) are carried over; default the directory that the model was loaded from.
        dtype: what to store, default the model's own.
        shard_bytes: upper bound of one file, unless a single tensor is larger.
        same_weights: False where they have been trained since: what they know by heart is then for others to say.
        vision: the tower, where it is not the source's, or has been trained since.
    """
    if model.quantization is not None:
        raise CheckpointError(f"a model that was loaded as {model.quantization} has lost digits: save it as it came")
    if model.backbone.state_dict().keys() != shapes_of(model.config).keys():
        raise CheckpointError("an adapter is in this model: take it out, or `redraft merge` it into its base")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    source = Path(source) if source is not None else model.source
    opened = None if source is None else Source.open(source)
    names = names_for(model.config) if opened is None else opened.names
    tensors = {
        names.of(name): tensor.detach().to("cpu", dtype or model.dtype).contiguous()
        for name, tensor in model.backbone.state_dict().items()
    }
    if opened is not None:
        tensors.update({name: tensor.read() for name, tensor in opened.passed_through().items()})
        copy_files(opened, directory, same_weights=same_weights)
    if vision is not None:
        tensors.update(vision_tensors(vision, names, dtype or model.dtype))
    config = without_absent_towers(model.config.to_dict(), tensors)
    config.pop("quantization_config", None)
    config["dtype"] = str(dtype or model.dtype).removeprefix("torch.")
    replace_text(directory / "config.json", json.dumps(config, indent=2) + "\n")
    _write_shards(tensors, directory, shard_bytes)


def copy_files(source: Source, directory: Path, *, same_weights: bool = True) -> None:
    """Copies what belongs beside the weights, tokenizer and templates, to another directory."""
    names = _OF_TEXT + _OF_SAMPLING
    if source.passed_through():
        names += _OF_VISION
    if same_weights:
        names += _BY_HEART
    for name in names:
        if (source.path / name).exists() and source.path.resolve() != directory.resolve():
            shutil.copyfile(source.path / name, directory / name)


def _write_shards(tensors: dict[str, Tensor], directory: Path, shard_bytes: int) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name in sorted(tensors):
        nbytes = tensors[name].nbytes
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensors[name]
        size += nbytes
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for name, shard in zip(names, shards, strict=True):
        fresh = directory / f"{name}.part"
        save_file(shard, fresh, metadata={"format": "pt"})
        flush(fresh)
    # Only now, so that shards of two models stand side by side for no longer than it takes to rename them.
    for name in names:
        os.replace(directory / f"{name}.part", directory / name)
    if len(shards) > 1:
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
        replace_text(directory / "model.safetensors.index.json", json.dumps(index, indent=2) + "\n")
