"""From experts that are stored one by one, or gate apart from up, to the two stacks that transformers has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from redraft.checkpoint.stored import StoredTensor
from redraft.core.errors import CheckpointError

_ONE = re.compile(r"(?P<owner>.*\.experts)\.(?P<expert>\d+)\.(?P<matrix>gate_proj|up_proj|down_proj)\.weight")
_APART = re.compile(r"(?P<owner>.*\.experts)\.(?:switch_glu\.)?(?P<matrix>gate_proj|up_proj|down_proj)(?:\.weight)?")
# The gate's rows come before up's.
_STACKS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}


def stack_experts(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """The same tensors with every layer's experts as `experts.gate_up_proj` [E, 2 I, D] and `experts.down_proj`.

    A stack's `load(e)` reads expert e alone. Other tensors, and stacks that are stored as such, pass unchanged.

    Raises:
        CheckpointError: an expert's matrix that is missing, or of another shape than its neighbours.
    """
    out: list[StoredTensor] = []
    single: dict[str, dict[str, dict[int, StoredTensor]]] = defaultdict(lambda: defaultdict(dict))
    apart: dict[str, dict[str, StoredTensor]] = defaultdict(dict)
    for tensor in tensors:
        if found := _ONE.fullmatch(tensor.name):
            single[found["owner"]][found["matrix"]][int(found["expert"])] = tensor
        elif (found := _APART.fullmatch(tensor.name)) and not _is_stack(tensor.name):
            apart[found["owner"]][found["matrix"]] = tensor
        else:
            out.append(tensor)
    for owner, matrices in single.items():
        out += _from_single(owner, matrices)
    for owner, matrices in apart.items():
        out += _from_apart(owner, matrices)
    return out


def _is_stack(name: str) -> bool:
    return name.endswith(".experts.down_proj")


def _from_single(owner: str, matrices: Mapping[str, Mapping[int, StoredTensor]]) -> list[StoredTensor]:
    count = 1 + max(chain.from_iterable(matrices.values()))
    stacks = []
    for stack, names in _STACKS.items():
        rows: list[list[StoredTensor]] = []
        for expert in range(count):
            for name in names:
                if expert not in matrices.get(name, {}):
                    raise CheckpointError(f"tensor '{owner}.{expert}.{name}.weight' is missing")
            rows.append([matrices[name][expert] for name in names])
        for name in names:
            _refuse_other_shapes(list(matrices[name].values()))
        stacks.append(_stack(f"{owner}.{stack}", rows))
    return stacks


def _from_apart(owner: str, matrices: Mapping[str, StoredTensor]) -> list[StoredTensor]:
    stacks = []
    for stack, names in _STACKS.items():
        present = [matrices[name] for name in names if name in matrices]
        if not present:
            # Stored as a stack, or missing: whoever knows the model's tensors will say so.
            continue
        if len(present) < len(names):
            missing = next(name for name in names if name not in matrices)
            raise CheckpointError(f"tensor '{owner}.{missing}' is missing beside {present[0].name!r}")
        shapes = {tensor.shape[0] for tensor in present}
        if len(shapes) > 1:
            raise CheckpointError(f"tensors {', '.join(t.name for t in present)} hold different numbers of experts")
        stacks.append(_concatenated(f"{owner}.{stack}", present))
    return stacks


def _refuse_other_shapes(tensors: Sequence[StoredTensor]) -> None:
    first = tensors[0]
    for tensor in tensors[1:]:
        if tensor.shape != first.shape:
            raise CheckpointError(
                f"tensor {tensor.name!r} has shape {list(tensor.shape)}, {first.name!r} has {list(first.shape)}"
            )


def _stack(name: str, rows: Sequence[Sequence[StoredTensor]]) -> StoredTensor:
    """One stack of experts, each from one matrix or from several whose rows follow each other."""
    columns = {tensor.shape[1] for tensor in rows[0]}
    if len(columns) > 1:
        raise CheckpointError(f"tensors {', '.join(repr(t.name) for t in rows[0])} differ in columns")
    shape = (len(rows), sum(tensor.shape[0] for tensor in rows[0]), *columns)
    dtype = _common_dtype(list(chain.from_iterable(rows)))

    def load(part: int | None) -> Tensor:
        if part is not None:
            joined = torch.cat([tensor.read() for tensor in rows[part]])
            return joined if dtype is None else joined.to(dtype)
        first = load(0)
        whole = first.new_empty(shape)
        for expert in range(len(rows)):
            whole[expert] = first if expert == 0 else load(expert)
        return whole

    return _joined(name, shape, list(chain.from_iterable(rows)), load)


def _concatenated(name: str, stacks: Sequence[StoredTensor]) -> StoredTensor:
    """One stack from several whose rows follow each other."""
    first = stacks[0]
    shape = (first.shape[0], sum(stack.shape[1] for stack in stacks), *first.shape[2:])

    def load(part: int | None) -> Tensor:
        return torch.cat([stack.read(part) for stack in stacks], dim=-2)

    return _joined(name, shape, stacks, load)


def _common_dtype(tensors: Sequence[StoredTensor]) -> torch.dtype | None:
    """What mixed experts are read as: their own dtype where all are alike, else float32."""
    return None if len({tensor.form for tensor in tensors}) == 1 else torch.float32


def _joined(
    name: str, shape: tuple[int, ...], tensors: Sequence[StoredTensor], load: Callable[[int | None], Tensor]
) -> StoredTensor:
    return StoredTensor(
        name=name,
        shape=shape,
        form="+".join(sorted({tensor.form for tensor in tensors})),
        nbytes=sum(tensor.nbytes for tensor in tensors),
        files=tuple(chain.from_iterable(tensor.files for tensor in tensors)),
        load=load,
    )
