"""Every tensor of a safetensors checkpoint under its Hugging Face name, whatever form each module is stored in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from redraft.checkpoint.formats.experts import stack_experts
from redraft.checkpoint.formats.forms import FORMS, Form, form_of
from redraft.checkpoint.formats.headers import Entry
from redraft.checkpoint.formats.settings import Settings
from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError

# What is stored for quantised activations and caches, which are read in floating point here.
_DROPPED = ("input_scale", "input_global_scale", "input_zero_point", "k_scale", "v_scale")
_BESIDE = ("weight_shape", "g_idx", "weight_g_idx")
_PARTS = {part for form in FORMS for part in (form.key, *form.needs, *form.may_have)} | set(_DROPPED)
_FLOATS = {"F64", "F32", "F16", "BF16"}
_FORM_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def stored_tensors(
    entries: Mapping[str, Entry], quantization_config: Mapping[str, Any] | None
) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint by the names that transformers gives them, owner prefix included.

    Plain tensors keep their name and dtype. Quantised matrices become float32 `X.weight`. Experts that are stored one
    by one, or gate apart from up, become `experts.gate_up_proj` and `experts.down_proj`. Headers alone are read.

    Args:
        entries: of its files.
        quantization_config: of its `config.json`, where MLX calls it `quantization`.

    Raises:
        CheckpointError: a part without its partner, an expert that is missing, shapes that do not go together, or two
            forms of one tensor; all by name.
    """
    settings = Settings.of(quantization_config)
    modules: dict[str, dict[str, Entry]] = defaultdict(dict)
    others: list[Entry] = []
    for name, entry in entries.items():
        module, _, part = name.rpartition(".")
        if part in _PARTS and module:
            modules[module][part] = entry
        else:
            others.append(entry)
    found = [plain(entry, entry.name) for entry in others]
    for module, parts in modules.items():
        found += _of_module(module, parts, settings)
    by_name: dict[str, StoredTensor] = {}
    for tensor in stack_experts(found):
        other = by_name.setdefault(tensor.name, tensor)
        if other is not tensor:
            raise CheckpointError(f"{tensor.name!r} is stored twice: {other.files[0]!r} and {tensor.files[0]!r}")
    return by_name


def _of_module(module: str, parts: dict[str, Entry], settings: Settings) -> list[StoredTensor]:
    """The module's matrix, if it has one; raises on parts that are left over."""
    form = form_of(parts)
    if form is None:
        return _unquantised(module, parts)
    for part in form.needs:
        if part not in parts:
            raise CheckpointError(
                f"tensor '{module}.{part}' is missing: {parts[form.key].name!r} cannot be read without it"
            )
    used = {part: parts[part] for part in (form.key, *form.needs, *form.may_have) if part in parts}
    _refuse_left_over(entry for part, entry in parts.items() if part not in used and part not in _DROPPED + _BESIDE)
    return [_quantised(module, form, used, settings)]


def _unquantised(module: str, parts: dict[str, Entry]) -> list[StoredTensor]:
    _refuse_left_over(entry for part, entry in parts.items() if part not in ("weight", *_DROPPED, *_BESIDE))
    weight = parts.get("weight")
    if weight is None:
        return []
    if weight.dtype not in _FLOATS:
        raise CheckpointError(f"tensor {weight.name!r} holds {weight.dtype}, in no form that redraft reads")
    return [plain(weight, _logical(module))]


def _refuse_left_over(surplus: Iterable[Entry]) -> None:
    names = sorted(repr(entry.name) for entry in surplus)
    if names:
        raise CheckpointError(f"left over {', '.join(names)}: the other parts of a quantised matrix are not there")


def _logical(module: str) -> str:
    """Fused experts are parameters of their own in transformers, other matrices are weights of a module."""
    return module if module.endswith((".experts.gate_up_proj", ".experts.down_proj")) else f"{module}.weight"


def plain(entry: Entry, name: str) -> StoredTensor:
    """A tensor that is stored as it is, in floating point."""
    return StoredTensor(
        name=name,
        shape=entry.shape,
        form=_FORM_NAMES.get(entry.dtype, entry.dtype.lower()),
        nbytes=entry.nbytes,
        files=(entry.name,),
        load=entry.read,
    )


def _quantised(module: str, form: Form, used: dict[str, Entry], settings: Settings) -> StoredTensor:
    layout = form.layout(module, used, settings)
    stacked = len(layout.shape) == 3

    @torch.no_grad()
    def load(part: int | None) -> Tensor:
        whole_then_part = part is not None and not stacked
        # What is stored once for a whole stack has no part of its own.
        own = {key for key, entry in used.items() if stacked and entry.shape[:1] == layout.shape[:1]}
        matrix = layout.decode({key: entry.read(part if key in own else None) for key, entry in used.items()})
        return matrix[part] if whole_then_part else matrix

    return StoredTensor(
        name=_logical(module),
        shape=layout.shape,
        form=layout.form,
        nbytes=sum(entry.nbytes for entry in used.values()),
        files=tuple(entry.name for entry in used.values()),
        load=load,
    )
