"""Reading and writing Hugging Face checkpoints: safetensors only, every tensor accounted for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from redraft.core.errors import CheckpointError, ModelNotFoundError
from redraft.core.files import read_json
from redraft.model.config import ModelConfig
from redraft.model.model import DiffusionGemma
from redraft.model.names import Names, names_for
from redraft.model.quantized import quantize_int8

COPIED_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tools.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
SHARD_BYTES = 5 * 10**9
ALIGNMENT = 64


@dataclass(frozen=True)
class TensorFiles:
    """The safetensors files of a directory and which of them holds each tensor."""

    directory: Path
    file_of: Mapping[str, str]

    @classmethod
    def of(cls, directory: Path) -> TensorFiles:
        """Reads headers only.

        Raises:
            CheckpointError: no weights, a shard that is missing, or a file that is cut short.
        """
        index = directory / "model.safetensors.index.json"
        if index.exists():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise CheckpointError(f"{index} has no weight_map")
            names = sorted(set(weight_map.values()))
        else:
            weight_map, names = None, ["model.safetensors"]
        file_of: dict[str, str] = {}
        for name in names:
            with open_file(directory / name) as file:
                file_of.update(dict.fromkeys(file.keys(), name))
        for tensor in weight_map or ():
            if tensor not in file_of:
                raise CheckpointError(f"{index} lists tensor {tensor!r}, which no file holds")
        return cls(directory, file_of)

    def read(self, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor), file by file, memory-mapped."""
        for file_name in sorted({self.file_of[name] for name in names}):
            with open_file(self.directory / file_name) as file:
                for name in names:
                    if self.file_of[name] == file_name:
                        yield name, file.get_tensor(name)


def open_file(path: Path):
    """An open safetensors file.

    Raises:
        CheckpointError: it does not exist, is cut short, or is no safetensors file.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: redraft reads safetensors checkpoints")
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): download or copy it again") from None


def load_model(
    directory: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: Literal["int8"] | None = None,
) -> DiffusionGemma:
    """The model of a checkpoint directory, in eval mode.

    Args:
        directory: Hugging Face layout, one safetensors file or several.
        device: where the weights go.
        dtype: what they are converted to.
        quantize: "int8" rounds the matrices to int8 after that; `dtype` is then that of activations, norms and router.

    Raises:
        ModelNotFoundError: no such directory.
        CheckpointError: a file, a field or a tensor that is missing, surplus or misshapen, by name.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ModelNotFoundError(f"{directory} is not a directory")
    config = ModelConfig.from_directory(directory)
    with torch.device("meta"):
        model = DiffusionGemma(config)
    files = TensorFiles.of(directory)
    names = names_for(config, files.file_of)
    wanted = {names.of(name): (name, tensor) for name, tensor in model.backbone.state_dict().items()}
    sources, duplicates = _match(files, names, wanted)
    loaded: dict[str, Tensor] = {}
    for file_name, tensor in files.read(list(sources)):
        name, expected = wanted[sources[file_name]]
        if tensor.shape != expected.shape:
            raise CheckpointError(
                f"{directory}: tensor {file_name!r} has shape {tuple(tensor.shape)}, "
                f"the config asks for {tuple(expected.shape)}"
            )
        if not tensor.is_floating_point():
            raise CheckpointError(f"{directory}: tensor {file_name!r} holds {tensor.dtype}, not floating-point numbers")
        loaded[name] = _aligned(tensor.to(device=device, dtype=dtype))
    for file_name, tensor in files.read(list(duplicates)):
        owner = loaded[wanted[duplicates[file_name]][0]]
        if not torch.equal(tensor.to(owner), owner):
            raise CheckpointError(
                f"{directory}: {file_name!r} differs from {duplicates[file_name]!r}; untied weights are not supported"
            )
    model.backbone.load_state_dict(loaded, assign=True)
    model.backbone.build_rotary(device)
    model.source = directory
    if quantize is not None:
        quantize_int8(model.backbone)
        model.quantization = quantize
    return model.eval().requires_grad_(False)


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, copied if it starts inside a cache line: the last bits of a product depend on where its operands
    begin, and where that is in a mapped file depends on its neighbours."""
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT else tensor


def _match(files: TensorFiles, names: Names, wanted: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str]]:
    """File tensors that fill a parameter, and second copies of such; raises on what is left over or missing."""
    sources, duplicates, surplus = {}, {}, []
    for name in files.file_of:
        if name.startswith(names.passed_through):
            continue
        owner = names.owner(name)
        if name in wanted:
            sources[name] = name
        elif owner in wanted and owner in files.file_of:
            duplicates[name] = owner
        elif owner in wanted:
            sources[name] = owner
        else:
            surplus.append(name)
    if surplus:
        raise CheckpointError(f"{files.directory}: surplus {_list(surplus)}, which the config has no place for")
    missing = sorted(set(wanted) - set(sources.values()))
    if missing:
        raise CheckpointError(f"{files.directory}: missing {_list(missing)}")
    return sources, duplicates


def _list(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ("tensor " if len(names) == 1 else "tensors ") + ", ".join(repr(n) for n in sorted(names)[:3]) + more


def save_checkpoint(
    model: DiffusionGemma,
    directory: str | Path,
    *,
    source: str | Path | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes the model in Hugging Face layout; transformers loads it.

    Args:
        model: the model.
        directory: made if missing.
        source: a checkpoint directory whose other tensors (vision) and files (tokenizer, template, generation
            config) are carried over; default the directory that the model was loaded from.
        dtype: what to store, default the model's own.
        shard_bytes: upper bound of one file, unless a single tensor is larger.
    """
    if model.quantization is not None:
        raise CheckpointError(f"a model that was loaded as {model.quantization} has lost digits: save it as it came")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    source = Path(source) if source is not None else model.source
    files = None if source is None else TensorFiles.of(source)
    names = names_for(model.config, () if files is None else files.file_of)
    tensors = {
        names.of(name): tensor.detach().to("cpu", dtype or model.dtype).contiguous()
        for name, tensor in model.backbone.state_dict().items()
    }
    if source is not None and files is not None:
        tensors.update(files.read([name for name in files.file_of if name.startswith(names.passed_through)]))
        for name in COPIED_FILES:
            if (source / name).exists() and source.resolve() != directory.resolve():
                shutil.copyfile(source / name, directory / name)
    config = model.config.to_dict()
    config["dtype"] = str(dtype or model.dtype).removeprefix("torch.")
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_shards(tensors, directory, shard_bytes)


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
    if len(shards) == 1:
        save_file(shards[0], directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file_name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file_name))
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
