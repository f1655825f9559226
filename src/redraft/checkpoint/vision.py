"""The tower of a checkpoint that sees, read when the first picture comes."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from redraft.checkpoint.names import Names
from redraft.checkpoint.rounding import rounded
from redraft.checkpoint.source import Source, listed
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError
from redraft.core.files import read_json
from redraft.kernels.matrices import Matrix
from redraft.placement.quantized import place
from redraft.vision.config import VisionConfig
from redraft.vision.size import BUDGETS, DEFAULT_BUDGET
from redraft.vision.tower import Vision

# In float32 whatever the rest is in: in bfloat16 neighbours of its largest numbers are 256 apart.
_EXACT = ("vision_tower.std_bias", "vision_tower.std_scale")
_PARTS = ("vision_tower.", "embed_vision.")
_BOUND = (".input_min", ".input_max", ".output_min", ".output_max")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
# What a processor's file may say that changes what is seen, and what is done here.
_DONE = {"do_convert_rgb": True, "do_resize": True, "do_rescale": True, "resample": 3}


class LazyVision:
    """The tower of an open checkpoint, read when it is first asked for, by whichever thread comes first."""

    def __init__(
        self,
        source: Source,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        quantize: Literal["int8"] | None = None,
    ) -> None:
        self._source, self._device, self._dtype = source, device, dtype
        self._quantize: Literal["int8"] | None = quantize
        self._vision: Vision | None = None
        self._lock = threading.Lock()

    @property
    def is_there(self) -> bool:
        """Whether the checkpoint holds any of a tower; nothing is read."""
        return bool(_stored(self._source))

    @cached_property
    def config(self) -> VisionConfig:
        """Its shape; of the files, headers are looked at.

        Raises:
            CheckpointError: as `load_vision`, but for what the tensors hold.
        """
        return _checked(self._source)[0]

    @property
    def is_loaded(self) -> bool:
        """Whether it has been read."""
        return self._vision is not None

    def __call__(self) -> Vision:
        """The tower.

        Raises:
            CheckpointError: as `load_vision`.
        """
        with self._lock:
            if self._vision is None:
                self._vision = load_vision(self._source, self._device, self._dtype, self._quantize)
            return self._vision


def vision_parameters(source: Source) -> int:
    """How many numbers the tower of a checkpoint has; 0 where it holds none."""
    return sum(math.prod(tensor.shape) for tensor in _stored(source).values())


def load_vision(
    source: Source | str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: Literal["int8"] | None = None,
) -> Vision:
    """Tower and projector of a checkpoint, in eval mode; no tensor of the text model is read.

    Args:
        source: a directory in any form that `load_model` reads, or an open one.
        device: where the weights go.
        dtype: of weights and activations.
        quantize: "int8" rounds the layers' matrices as they come; patches, places, norms and the projector stay.

    Raises:
        CheckpointError: there is no tower, or a field or tensor of it is missing, surplus, misshapen or not finite, by
            name.
    """
    source = source if isinstance(source, Source) else Source.open(source)
    _, vision, stored, shapes = _checked(source)
    rounded_ones = [name for name in shapes if quantize is not None and name.endswith(".linear.weight")]
    matrices: dict[str, Matrix] = {name: rounded(stored[name], "int8").to(device) for name in rounded_ones}
    loaded = {name: _read(source, stored[name], name, device, dtype) for name in shapes if name not in matrices}
    place(vision, matrices, dtype)
    vision.load_state_dict(loaded, assign=True)
    vision.quantization = quantize
    return vision.eval().requires_grad_(False)


def vision_tensors(vision: Vision, names: Names, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a tower under a checkpoint's names, for saving.

    Args:
        vision: the tower.
        names: how the checkpoint names its tensors.
        dtype: what to store; numbers that must not be rounded again stay float32 where it cannot hold them.

    Raises:
        CheckpointError: the tower has been rounded.
    """
    if vision.quantization is not None:
        raise CheckpointError(f"a tower that was loaded as {vision.quantization} has lost digits: save it as it came")
    prefix = names.passed_through[0].removesuffix(_PARTS[0])
    tensors = {}
    for name, tensor in vision.state_dict().items():
        narrow, wide = tensor.detach().to("cpu", dtype), tensor.detach().to("cpu", torch.float32)
        exact = name in _EXACT and not torch.equal(narrow.float(), wide)
        tensors[prefix + name] = (wide if exact else narrow).contiguous()
    return tensors


def default_image_tokens(directory: str | Path) -> int:
    """How many soft tokens a picture may become where nobody says: what the checkpoint's processor file says, else 280.

    Raises:
        CheckpointError: the file asks for something else than what is done here.
    """
    for path in (Path(directory) / name for name in _PROCESSORS):
        if not path.exists():
            continue
        fields = read_json(path)
        fields = fields.get("image_processor", fields)
        if not isinstance(fields, Mapping):
            raise CheckpointError(f"{path}: image_processor must be a mapping")
        for field, done in _DONE.items():
            if (value := fields.get(field)) is not None and value != done:
                raise CheckpointError(f"{path}: {field} must be {done!r}, got {value!r:.40}")
        shifted = fields.get("image_mean") or [0], fields.get("image_std") or [1]
        if fields.get("do_normalize") and (any(shifted[0]) or set(shifted[1]) != {1}):
            raise CheckpointError(f"{path}: image_mean and image_std must be 0 and 1, got {shifted!r:.80}")
        if (budget := fields.get("max_soft_tokens")) is not None:
            if budget not in BUDGETS:
                raise CheckpointError(f"{path}: max_soft_tokens must be one of {BUDGETS}, got {budget!r:.40}")
            return budget
    return DEFAULT_BUDGET


def _stored(source: Source) -> dict[str, StoredTensor]:
    """A checkpoint's tensors of the tower, by our names."""
    prefix = source.names.passed_through[0].removesuffix(_PARTS[0])
    found = {name.removeprefix(prefix): tensor for name, tensor in source.passed_through().items()}
    return {name: tensor for name, tensor in found.items() if name.startswith(_PARTS)}


def _checked(source: Source) -> tuple[VisionConfig, Vision, dict[str, StoredTensor], dict[str, tuple[int, ...]]]:
    """(config, a tower without weights, what fills it, the shapes of that)."""
    stored = _stored(source)
    if not stored:
        raise CheckpointError(
            f"{source.path} holds no vision tower: load a checkpoint with one in safetensors form, or send text only"
        )
    config = VisionConfig.from_dict(source.raw, source.config.hidden_size, str(source.path / "config.json"))
    with torch.device("meta"):
        vision = Vision(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in vision.state_dict().items()}
    _check(source, stored, shapes)
    return config, vision, stored, shapes


def _check(source: Source, stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if missing := [stored_name for stored_name in shapes if stored_name not in stored]:
        raise CheckpointError(f"{source.path}: the vision tower is missing {listed(missing)}")
    # Bounds that the config does not ask for are ignored, as the reference does.
    if surplus := [name for name in stored if name not in shapes and not name.endswith(_BOUND)]:
        raise CheckpointError(f"{source.path}: surplus {listed(surplus)}, which vision_config has no place for")
    for name, shape in shapes.items():
        if stored[name].shape != shape:
            raise CheckpointError(
                f"{source.path}: tensor {stored[name].name!r} has shape {stored[name].shape}, "
                f"vision_config asks for {shape}"
            )


def _read(source: Source, tensor: StoredTensor, name: str, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    found = tensor.read()
    if name in _EXACT:
        if not bool(found.isfinite().all()):
            raise CheckpointError(
                f"{source.path}: tensor {tensor.name!r} holds numbers that are not finite: "
                "it was saved in a form too narrow for them"
            )
        dtype = torch.float32
    # A copy: what is mapped from a file lies at any address, and the last bits of a product depend on it.
    return found.to(device=device, dtype=dtype, copy=True)
