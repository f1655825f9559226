"""From a checkpoint to a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from redraft.checkpoint.formats.headers import CACHE_LINE
from redraft.checkpoint.layout import verify as verify_files
from redraft.checkpoint.locate import check_name
from redraft.checkpoint.offload import stream_experts
from redraft.checkpoint.rounding import RECIPES, Form, Recipe, rounded
from redraft.checkpoint.source import Source
from redraft.checkpoint.stored import StoredTensor
from redraft.core.checks import shown
from redraft.core.errors import CheckpointError, OptionError
from redraft.kernels.accelerator import has_float8
from redraft.kernels.matrices import Matrix
from redraft.model.model import DiffusionGemma
from redraft.placement.conveyor import PlainStack, Stack, convey
from redraft.placement.device import find_device
from redraft.placement.quantized import packed_for_device, place
from redraft.placement.runner import place_runner


def load_model(
    directory: str | os.PathLike[str] | Source,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: Literal["int8", "int4", "fp8"] | None = None,
    *,
    streamed: frozenset[int] = frozenset(),
    in_memory: bool | None = None,
    verify: bool = False,
) -> DiffusionGemma:
    """The model of a checkpoint, in eval mode.

    Args:
        directory: Hugging Face layout in any published form, a GGUF file, or either open already. What is in our own
            quantised layout stays so and is mapped from its files; other forms are widened to `dtype`, one tensor at a
            time.
        device: where the weights go.
        dtype: of activations and of all weights that are not quantised.
        quantize: "int8", "int4" or "fp8" rounds the matrices as they come.
        streamed: layers whose experts do not stay on the device, but come whenever they are needed.
        in_memory: whether those wait in host memory; otherwise in their files. None: for an accelerator.
        verify: compare every tensor with its checksum first; for our own layout.

    Raises:
        ModelNotFoundError: no such directory or file.
        CheckpointError: a file, a field or a tensor that is missing, surplus, misshapen or corrupted, by name.
        OptionError: weights in a form that the device cannot hold, or a value that cannot work.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise OptionError(f"dtype must be one of torch's floating-point dtypes, like torch.float32, got {shown(dtype)}")
    if quantize is not None and (not isinstance(quantize, str) or quantize not in RECIPES):
        raise OptionError(f"quantize must be None, {', '.join(map(repr, RECIPES))}, got {shown(quantize)}")
    if not isinstance(directory, Source):
        check_name(directory)
    # Shapes without bytes, for whoever looks at a model and runs nothing.
    is_meta = isinstance(device, torch.device) and device.type == "meta"
    device = torch.device("meta") if is_meta else find_device(device)
    source = directory if isinstance(directory, Source) else Source.open(directory)
    if verify:
        if not source.quantised:
            raise CheckpointError(
                f"{source.path} is not in redraft's quantised layout: there are no checksums to verify"
            )
        verify_files(sorted({entry.path for entry in source.entries.values()}))
    with torch.device("meta"):
        model = DiffusionGemma(source.config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.backbone.state_dict().items()}
    tensors = source.parameters(shapes)
    recipe = None if quantize is None else RECIPES[quantize]
    if not has_float8(device) and "fp8" in {_form(source, recipe, shapes, *named) for named in tensors.items()}:
        raise OptionError(f"fp8 weights cannot be held on {device}: quantize='int8' or 'int4' can")
    kept = {name: tensor for name, tensor in tensors.items() if not _is_streamed(name, streamed)}
    matrices: dict[str, Matrix] = {}
    loaded: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        form = _form(source, recipe, shapes, name, tensor)
        if form is not None:
            matrices[name] = rounded(tensor, form).to(device)
        else:
            loaded[name] = _aligned(_floating(source.path, tensor).to(device=device, dtype=dtype))
    if streamed and (device.type != "cpu" if in_memory is None else in_memory):

        def stack(name: str) -> Stack:
            form = _form(source, recipe, shapes, name, tensors[name])
            if form is None:
                return PlainStack(_floating(source.path, tensors[name]).to(device=device, dtype=dtype))
            return rounded(tensors[name], form).to(device)

        names = {n: (f"layers.{n}.experts.gate_up_proj", f"layers.{n}.experts.down_proj") for n in sorted(streamed)}
        pairs = ((n, packed_for_device(stack(wide), stack(narrow), dtype)) for n, (wide, narrow) in names.items())
        convey(model.backbone, pairs, device)
    elif streamed:
        stream_experts(model.backbone, source, {n: t for n, t in tensors.items() if n not in kept}, dtype)
    place(model.backbone, matrices, dtype)
    model.backbone.load_state_dict(loaded, assign=True)
    model.backbone.build_rotary(device)
    model.source = source.path
    model.quantization = quantize or (source.forms[0] if source.forms else None)
    place_runner(model)
    return model.eval().requires_grad_(False)


def _form(source: Source, recipe: Recipe | None, shapes: dict, name: str, tensor: StoredTensor) -> Form | None:
    if recipe is not None:
        return recipe.form_of(shapes, name)
    return tensor.form if source.quantised and tensor.matrix is not None else None  # type: ignore[return-value]


def _is_streamed(name: str, streamed: frozenset[int]) -> bool:
    parts = name.split(".")
    return len(parts) > 3 and parts[0] == "layers" and parts[2] == "experts" and int(parts[1]) in streamed


def _floating(path: Path, tensor: StoredTensor) -> Tensor:
    found = tensor.read()
    if not found.is_floating_point():
        raise CheckpointError(f"{path}: tensor {tensor.name!r} holds {found.dtype}, not floating-point numbers")
    return found


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, copied if it starts inside a cache line: the last bits of a product depend on where its operands
    begin, and where that is in a mapped file depends on its neighbours."""
    return tensor.clone() if tensor.device.type == "cpu" and tensor.data_ptr() % CACHE_LINE else tensor
