"""The modules of a model whose weights are quantised. Where gradients are on, they multiply widened weights, so that
what is trained through them learns from the weights and not from how rows are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from redraft.kernels.dots import dot_lanes
from redraft.kernels.experts import experts_float8, experts_int4, experts_int8
from redraft.kernels.float8 import float8_linear
from redraft.kernels.int8 import PackedInt8, PackedStack, int8_linear
from redraft.kernels.low_rank import adapted_experts
from redraft.kernels.matrices import Matrix
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton.fallback import attempt, on_gpu
from redraft.kernels.widened import Frozen, widened_linear

if TYPE_CHECKING:
    from redraft.kernels.triton.packed import PackedInt4


class FrozenModule(nn.Module):
    """What the quantised modules have in common.

    Attributes:
        weight_only: whether all rows meet widened weights where gradients are on; else those that have a gradient do.
    """

    weight_only = False

    def learns(self, x: Tensor) -> bool:
        """Whether these rows are multiplied for a backward pass."""
        return torch.is_grad_enabled() and (self.weight_only or x.requires_grad)


class Int8Linear(FrozenModule):
    """A bias-free linear layer with int8 weights; activations are quantised as they come."""

    def __init__(self, matrix: Int8Matrix) -> None:
        super().__init__()
        self.packed = PackedInt8.of(matrix)

    @property
    def frozen(self) -> Frozen:
        """Its matrix."""
        return self.packed

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        if self.learns(x):
            return widened_linear(x, self.packed)
        return int8_linear(x, self.packed)


class Float8Linear(FrozenModule):
    """A bias-free linear layer with float8 weights."""

    def __init__(self, matrix: Float8Matrix) -> None:
        super().__init__()
        self.matrix = matrix

    @property
    def frozen(self) -> Frozen:
        """Its matrix."""
        return self.matrix

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        if self.learns(x):
            return widened_linear(x, self.matrix)
        return float8_linear(x, self.matrix)


class FrozenExperts(FrozenModule):
    """What quantised experts have in common."""

    gate_up: Any
    down: Any

    @property
    def num_experts(self) -> int:
        """How many there are."""
        stack = self.gate_up
        return len(stack) if isinstance(stack, Sequence) else len(stack.data)  # type: ignore[union-attr]

    def widened(self, x: Tensor, index: Tensor, weight: Tensor) -> Float[Tensor, "N D"]:
        """What the experts make of rows that have a gradient."""
        return adapted_experts(x, index, weight, (self.gate_up, self.down), self.num_experts, None, None)


class Int8Experts(FrozenExperts):
    """All experts of a layer in int8."""

    def __init__(self, gate_up: Int8Matrix, down: Int8Matrix) -> None:
        super().__init__()
        # A GPU's kernels read stacks.
        stays = on_gpu(gate_up.data, down.data)
        self.gate_up, self.down = (gate_up, down) if stays else (_packed(gate_up), _packed(down))

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        if self.learns(x):
            return self.widened(x, index, weight)
        return experts_int8(x, index, weight, self.gate_up, self.down)


class Int4Experts(FrozenExperts):
    """All experts of a layer in int4: as they lie in their file, or packed for a GPU."""

    def __init__(self, gate_up: Int4Matrix | PackedInt4, down: Int4Matrix | PackedInt4) -> None:
        super().__init__()
        self.gate_up, self.down = gate_up, down

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        if self.learns(x):
            return self.widened(x, index, weight)
        return experts_int4(x, index, weight, self.gate_up, self.down)


class Float8Experts(FrozenExperts):
    """All experts of a layer in float8, which are widened when a row comes to them."""

    def __init__(self, gate_up: Float8Matrix, down: Float8Matrix) -> None:
        super().__init__()
        self.gate_up, self.down = gate_up, down

    def forward(
        self, x: Float[Tensor, "N D"], index: Int[Tensor, "N A"], weight: Float[Tensor, "N A"]
    ) -> Float[Tensor, "N D"]:
        if self.learns(x):
            return self.widened(x, index, weight)
        return experts_float8(x, index, weight, self.gate_up, self.down)


class Int8Embedding(nn.Module):
    """The embedding, which is also the head, in int8 with one scale a token."""

    def __init__(self, matrix: Int8Matrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix, self.dtype = matrix, dtype

    def forward(self, token_ids: Int[Tensor, "..."]) -> Float[Tensor, "... D"]:
        return self.matrix.rows(token_ids, self.dtype)


# Packed ones, whose type only a GPU needs, are int4 as well.
_EXPERTS = {Int4Matrix: Int4Experts, Int8Matrix: Int8Experts, Float8Matrix: Float8Experts}


def place(backbone: nn.Module, matrices: dict[str, Matrix], dtype: torch.dtype) -> None:
    """Puts modules with these matrices in the place of the backbone's own.

    Args:
        backbone: whose modules are replaced; a tower's are as well.
        matrices: by the names of the parameters; both of a layer's experts, or none. It is empty afterwards: what is
            packed anew for the device would otherwise lie there twice.
        dtype: of activations.
    """
    for name in [name for name in matrices if not name.endswith(".experts.down_proj")]:
        matrix = matrices.pop(name)
        path, _, parameter = name.rpartition(".")
        if parameter == "gate_up_proj":
            module: nn.Module = experts_of(*packed_for_device(matrix, matrices.pop(f"{path}.down_proj"), dtype))
        elif path == "embed_tokens":
            module = Int8Embedding(matrix, dtype)  # type: ignore[arg-type]
        else:
            module = Int8Linear(matrix) if isinstance(matrix, Int8Matrix) else Float8Linear(matrix)  # type: ignore[arg-type]
        owner, _, child = path.rpartition(".")
        setattr(backbone.get_submodule(owner), child, module)


def packed_for_device(
    gate_up: Matrix, down: Matrix, dtype: torch.dtype
) -> tuple[Matrix | PackedInt4, Matrix | PackedInt4]:
    """Int4 experts in the order in which the GPU that they lie on multiplies them; others, and elsewhere, as they are.

    Args:
        gate_up: a layer's wide stack.
        down: its narrow one.
        dtype: of activations; other than bfloat16 ones are multiplied with the stored form.
    """
    if not (isinstance(gate_up, Int4Matrix) and isinstance(down, Int4Matrix)):
        return gate_up, down
    if dtype != torch.bfloat16 or not on_gpu(gate_up.data, down.data):
        return gate_up, down
    wide, narrow = gate_up, down

    def packed() -> tuple[Matrix | PackedInt4, Matrix | PackedInt4]:
        from redraft.kernels.triton.experts import packed_int4

        return packed_int4(wide, paired=True), packed_int4(narrow, paired=False)

    return attempt("pack_int4", packed, lambda: (gate_up, down))


def experts_of(gate_up: Matrix | PackedInt4, down: Matrix | PackedInt4) -> nn.Module:
    """A layer's experts from their two stacks, which have the same form."""
    return _EXPERTS.get(type(gate_up), Int4Experts)(gate_up, down)  # type: ignore[arg-type]


def _packed(stack: Int8Matrix) -> Sequence[PackedInt8]:
    if stack.data.device.type == "cpu" and dot_lanes():
        return PackedStack.of(stack)
    return [PackedInt8.of(Int8Matrix(data=d, scale=s)) for d, s in zip(stack.data, stack.scale, strict=True)]
