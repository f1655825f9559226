"""The forms that one matrix is stored in, told by the tensors that are there, and how each is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from redraft.checkpoint.formats import decode
from redraft.checkpoint.formats.headers import Entry
from redraft.checkpoint.formats.settings import Settings
from redraft.core.errors import CheckpointError

Parts = Mapping[str, Entry]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one module's tensors make a matrix.

    Attributes:
        form: its name.
        shape: of the matrix, or of the stack of them.
        decode: from the tensors by part, whole or each one's part along the first dimension, to float32.
    """

    form: str
    shape: tuple[int, ...]
    decode: Callable[[Tensors], Tensor]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A way to store a matrix in several tensors.

    Attributes:
        key: the part that holds the numbers.
        dtypes: that it then has.
        needs: the parts without which it cannot be read.
        may_have: further parts that are used.
        layout: checks shapes and says how to decode: (module, parts, settings).
    """

    key: str
    dtypes: frozenset[str]
    needs: tuple[str, ...]
    may_have: tuple[str, ...] = ()
    layout: Callable[[str, Parts, Settings], Layout]


def form_of(parts: Parts) -> Form | None:
    """The form that these parts of a module belong to; None if none holds numbers in a form we know."""
    return next((form for form in FORMS if form.key in parts and parts[form.key].dtype in form.dtypes), None)


def _scaled(module: str, parts: Parts, settings: Settings) -> Layout:
    weight, scale = parts["weight"], parts["weight_scale"]
    *stacked, rows, columns = weight.shape
    groups = scale.shape[-1] if len(scale.shape) == len(weight.shape) else 1
    group_size = _group_size(module, columns, groups, settings)
    whole = (tuple(stacked), (*stacked, 1), (*stacked, 1, 1), (*stacked, rows))
    _expect(scale, *whole, (*stacked, rows, groups))
    form = {"I8": "int8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[weight.dtype]

    def matrix(tensors: Tensors) -> Tensor:
        return decode.scaled(tensors["weight"], tensors["weight_scale"], tensors.get("weight_zero_point"), group_size)

    return Layout(form=form, shape=weight.shape, decode=matrix)


def _nvfp4(key: str, second: str, *, divides: bool) -> Callable[[str, Parts, Settings], Layout]:
    def layout(module: str, parts: Parts, settings: Settings) -> Layout:
        *rows, packed_columns = parts[key].shape
        columns = 2 * packed_columns
        _expect(parts["weight_scale"], (*rows, columns // decode.NVFP4_GROUP))
        stacked = rows[:-1]
        _expect(parts[second], tuple(stacked), (*stacked, 1), (*stacked, 1, 1))

        def matrix(tensors: Tensors) -> Tensor:
            factor = tensors[second].float()
            return decode.nvfp4(tensors[key], tensors["weight_scale"], 1 / factor if divides else factor)

        return Layout(form="nvfp4", shape=(*rows, columns), decode=matrix)

    return layout


def _packed_int(module: str, parts: Parts, settings: Settings) -> Layout:
    packed, scale = parts["weight_packed"], parts["weight_scale"]
    bits = settings.packed_bits
    *stacked, rows, words = packed.shape
    columns, groups = 32 * words // bits, scale.shape[-1]
    _expect(scale, (*stacked, rows, groups))
    if "weight_zero_point" in parts:
        _expect(parts["weight_zero_point"], (*stacked, -(-rows * bits // 32), groups))
    group_size = _group_size(module, columns, groups, settings)

    def matrix(tensors: Tensors) -> Tensor:
        given = tensors.get("weight_shape")
        # The last word of a row may be filled up; no model of this family has such a row.
        if given is not None and given.flatten().tolist()[-2:] != [rows, columns]:
            raise CheckpointError(
                f"tensor {parts['weight_shape'].name!r} says {given.tolist()}, "
                f"{packed.name!r} holds {[rows, columns]} at {bits} bits"
            )
        return decode.packed_int(
            tensors["weight_packed"],
            tensors["weight_scale"],
            bits=bits,
            group_size=group_size,
            zero_point=tensors.get("weight_zero_point"),
            group_of=tensors.get("weight_g_idx"),
        )

    return Layout(form=f"int{bits}", shape=(*stacked, rows, columns), decode=matrix)


def _gptq_or_awq(module: str, parts: Parts, settings: Settings) -> Layout:
    qweight, qzeros, scales = parts["qweight"], parts["qzeros"], parts["scales"]
    if len(scales.shape) != 2:
        raise CheckpointError(f"tensor {scales.name!r} has shape {scales.shape}, expected [groups, outputs]")
    groups, rows = scales.shape
    bits = 32 * qzeros.shape[-1] // rows
    _expect(qzeros, (groups, bits * rows // 32))
    if bits not in (2, 4, 8):
        raise CheckpointError(f"tensor {qzeros.name!r}: integers of {bits} bits in this layout are not supported")
    if qweight.shape[-1] != rows:
        columns = qweight.shape[0]
        _expect(qweight, (columns, rows // 8))
        size = _group_size(module, columns, groups, settings)
        return Layout(
            form="awq-int4",
            shape=(rows, columns),
            decode=lambda t: decode.awq(t["qweight"], t["qzeros"], t["scales"], group_size=size),
        )
    columns = qweight.shape[0] * 32 // bits
    _expect(qweight, (columns * bits // 32, rows))
    group_size = _group_size(module, columns, groups, settings)

    def matrix(t: Tensors) -> Tensor:
        try:
            return decode.gptq(
                t["qweight"],
                t["qzeros"],
                t["scales"],
                bits=bits,
                group_size=group_size,
                zero_offset=settings.zero_offset,
                group_of=t.get("g_idx"),
            )
        except ValueError as error:
            raise CheckpointError(
                f"tensor {qzeros.name!r} holds {error}: quantization_config must name checkpoint_format or "
                "packing_format"
            ) from None

    return Layout(form=f"gptq-int{bits}", shape=(rows, columns), decode=matrix)


def _mlx(module: str, parts: Parts, settings: Settings) -> Layout:
    weight, scales = parts["weight"], parts["scales"]
    given = settings.mlx(module)
    floats = scales.dtype == "U8"
    group_size = given.get("group_size", (16 if given.get("mode") == "nvfp4" else 32) if floats else 64)
    *rows, groups = scales.shape
    columns = groups * group_size
    bits, rest = divmod(32 * weight.shape[-1], columns)
    if rest or bits not in ((4, 8) if floats else (1, 2, 3, 4, 5, 6, 8)):
        raise CheckpointError(
            f"tensors {weight.name!r} and {scales.name!r} do not go together in groups of {group_size}: "
            "quantization_config must name the module's group_size"
        )
    _expect(weight, (*rows, columns * bits // 32))
    if floats:
        form = {16: "nvfp4"}.get(group_size, f"mxfp{bits}")

        def matrix(t: Tensors) -> Tensor:
            return decode.mlx_float(t["weight"], t["scales"], bits=bits, group_size=group_size)

    else:
        form = f"mlx-int{bits}"
        if "biases" not in parts:
            raise CheckpointError(f"tensor '{module}.biases' is missing: {weight.name!r} cannot be read without it")
        _expect(parts["biases"], scales.shape)

        def matrix(t: Tensors) -> Tensor:
            return decode.mlx_affine(t["weight"], t["scales"], t["biases"], bits=bits)

    return Layout(form=form, shape=(*rows, columns), decode=matrix)


def _group_size(module: str, columns: int, groups: int, settings: Settings) -> int:
    size = decode.group_size_of(columns, groups, settings.group_sizes)
    if size is None:
        raise CheckpointError(
            f"{module}: {groups} groups do not divide {columns} columns: quantization_config must name the group_size"
        )
    return size


def _expect(entry: Entry, *shapes: tuple[int, ...]) -> None:
    if entry.shape not in shapes:
        raise CheckpointError(
            f"tensor {entry.name!r} has shape {list(entry.shape)}, expected {list(shapes[-1])} beside its numbers"
        )


FORMS = (
    Form(
        key="weight_packed",
        dtypes=frozenset({"U8"}),
        needs=("weight_scale", "weight_global_scale"),
        layout=_nvfp4("weight_packed", "weight_global_scale", divides=True),
    ),
    Form(
        key="weight",
        dtypes=frozenset({"U8"}),
        needs=("weight_scale", "weight_scale_2"),
        layout=_nvfp4("weight", "weight_scale_2", divides=False),
    ),
    Form(
        key="weight_packed",
        dtypes=frozenset({"I32"}),
        needs=("weight_scale",),
        may_have=("weight_zero_point", "weight_shape", "weight_g_idx"),
        layout=_packed_int,
    ),
    Form(
        key="weight",
        dtypes=frozenset({"F8_E4M3", "F8_E5M2", "I8"}),
        needs=("weight_scale",),
        may_have=("weight_zero_point",),
        layout=_scaled,
    ),
    Form(
        key="qweight",
        dtypes=frozenset({"I32"}),
        needs=("qzeros", "scales"),
        may_have=("g_idx",),
        layout=_gptq_or_awq,
    ),
    Form(key="weight", dtypes=frozenset({"U32"}), needs=("scales",), may_have=("biases",), layout=_mlx),
)
