"""Cases of `verify`: grouping, and the mixture's products in every form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from compare import BFLOAT16, Case, compared, equal, poison, worst
from context import Context
from torch import Generator, Tensor
from weights import float8_matrix, int4_matrix, int8_matrix, reach

from redraft.kernels.triton.configs import configs_of
from redraft.kernels.triton.dense import Operands
from redraft.kernels.triton.experts import experts_triton, rounded_for
from redraft.kernels.triton.grouping import group
from redraft.kernels.triton.packed import pack_int4
from redraft.kernels.triton.rows import MOST, rounded
from redraft.kernels.triton.target import target_of

# The interpreter has no bfloat16; on a CPU all is float32.
_FLOAT32 = 1e-5
# What is rounded to 8 bits before a product, against what is not; and against the same roundings, of which a few fall
# on the other side of a half.
_UNROUNDED = {torch.int8: 3e-2, torch.float8_e4m3fn: 6e-2}
_ROUNDED = 1e-2


class _Sizes:
    """The mixture's sizes, and inputs for them."""

    def __init__(self, context: Context, generator: Generator) -> None:
        config = context.config
        self.E, self.A = config.num_experts, config.top_k_experts
        self.D, self.I = config.hidden_size, config.moe_intermediate_size
        # The interpreter takes its time.
        self.N = config.canvas_length if context.clock.on_device else 12
        self.reached = [reach(config, touched) for touched in (128, 84)]
        self.clock, self.generator = context.clock, generator
        self.device, self.on_device = context.clock.device, context.clock.on_device
        self.dtype = torch.bfloat16 if self.on_device else torch.float32
        self.bound = BFLOAT16 if self.on_device else _FLOAT32
        self._known: dict[str, Any] = {}

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, generator=self.generator)

    def routings(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(name, experts of each row, weights): spread over all, over some, one with every row, a single row."""
        for reached in self.reached:
            yield f"{reached} experts", *self._routed(self.N, reached)
        index, weight = self._routed(self.N, self.E)
        index[:, 1:] = torch.where(index[:, 1:] == 0, index[:, :1], index[:, 1:])
        index[:, 0] = 0
        yield "one expert with every row", index, weight
        yield "one row", *self._routed(1, self.E)

    def _routed(self, rows: int, reached: int) -> tuple[Tensor, Tensor]:
        order = torch.rand(rows, reached, device=self.device, generator=self.generator)
        weight = torch.rand(rows, self.A, device=self.device, generator=self.generator) + 0.1
        return order.topk(self.A, dim=-1).indices, weight

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Weights are made once; all of them together would not fit, so that others go."""
        if name not in self._known:
            self._known = {name: make()}
        return self._known[name]


def cases(context: Context, generator: Generator) -> dict[str, Case]:
    """By name."""
    sizes = _Sizes(context, generator)
    forms = {"int4": _int4, "bf16": _bf16, "fp8": _fp8, "fp8 widened": _widened, "int8": _int8}
    found: dict[str, Case] = {"experts grouped": lambda: _grouped(sizes)}
    for form, check in forms.items():
        for name, index, weight in sizes.routings():
            found[f"experts {form}, {name}"] = lambda check=check, i=index, w=weight: check(sizes, i, w)
    found["experts int4, words as shifts"] = lambda: _words(sizes)
    found["experts int4, twice the same"] = lambda: _twice(sizes)
    return found


def _grouped(sizes: _Sizes) -> dict[str, Any]:
    index, _ = sizes._routed(sizes.N, sizes.E)
    order, table = group(index, sizes.E, 64)
    result = equal(order.long(), index.flatten().argsort(stable=True))
    counts = torch.zeros(sizes.E, dtype=torch.long, device=index.device)
    used = table[table[:, 2] > 0].long()
    counts.scatter_add_(0, used[:, 0], used[:, 2])
    return result if not result["ok"] else equal(counts, torch.bincount(index.flatten(), minlength=sizes.E))


def _reference(
    x: Tensor,
    index: Tensor,
    weight: Tensor,
    expert: Callable[[int], tuple[Tensor, Tensor]],
    rounds: torch.dtype | None = None,
) -> Tensor:
    """Row by row and expert by expert, in float64; `expert` gives (gate-up, down) of one, and what stands before each
    product is rounded to `rounds`."""
    out = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    if rounds is not None:
        eight = rounded(x, rounds)
        assert eight.scale is not None
        x = eight.values.double() * eight.scale.double()[:, None]
    for e in index.unique().tolist():
        rows, places = (index == e).nonzero(as_tuple=True)
        gate_up, down = expert(e)
        gate, up = (x[rows].double() @ gate_up.double().T).chunk(2, dim=-1)
        units = F.gelu(gate, approximate="tanh") * up
        if rounds is not None:
            units = torch.cat([_to_eight_bits(part, rounds) for part in units.split(64, dim=-1)], dim=-1)
        out.index_add_(0, rows, (units @ down.double().T) * weight[rows, places].double()[:, None])
    return out


def _to_eight_bits(units: Tensor, dtype: torch.dtype) -> Tensor:
    scale = units.abs().amax(-1, keepdim=True) / MOST[dtype]
    values = (units / scale.where(scale > 0, 1)).float()
    return (values.round() if dtype == torch.int8 else values.to(dtype)).double() * scale


def _eight_bits(
    sizes: _Sizes, wide: Any, narrow: Any, index: Tensor, weight: Tensor, operands: Operands | None = None
) -> dict[str, Any]:
    x = sizes.random(len(index), sizes.D).to(sizes.dtype)
    rounds = rounded_for(wide, operands)
    poison(sizes.clock)
    found = experts_triton(x, index, weight, wide, narrow, operands=operands)

    def expert(e: int) -> tuple[Tensor, Tensor]:
        up, down = (type(stack)(data=stack.data[e], scale=stack.scale[e]).dequantised() for stack in (wide, narrow))
        return up, down

    exact = _reference(x, index, weight, expert)
    if rounds is None:
        return compared(found, exact, sizes.bound, "widened")
    same = compared(found, _reference(x, index, weight, expert, rounds), _ROUNDED, "against the same roundings")
    return worst([same, compared(found, exact, _UNROUNDED[rounds], "against rows that are not rounded")])


def _int4_pair(sizes: _Sizes) -> Any:
    def make() -> Any:
        shapes = (sizes.E, 2 * sizes.I, sizes.D), (sizes.E, sizes.D, sizes.I)
        stored = [int4_matrix(shape, sizes.device, sizes.generator) for shape in shapes]
        order = "wgmma"
        if sizes.on_device:
            from redraft.kernels.triton.configs import order_of

            order = order_of(*target_of(sizes.device))
        return stored, [pack_int4(m, order=order, paired=m is stored[0]) for m in stored]

    return sizes.once("int4", make)


def _int4(sizes: _Sizes, index: Tensor, weight: Tensor) -> dict[str, Any]:
    (wide, narrow), packed = _int4_pair(sizes)
    x = sizes.random(len(index), sizes.D).to(sizes.dtype)
    poison(sizes.clock)
    found = experts_triton(x, index, weight, *packed)
    expected = _reference(x, index, weight, lambda e: (wide.dequantised(e), narrow.dequantised(e)))
    return compared(found, expected, sizes.bound)


def _bf16(sizes: _Sizes, index: Tensor, weight: Tensor) -> dict[str, Any]:
    wide, narrow = _bf16_pair(sizes)
    x = sizes.random(len(index), sizes.D).to(sizes.dtype)
    poison(sizes.clock)
    found = experts_triton(x, index, weight, wide, narrow)
    return compared(found, _reference(x, index, weight, lambda e: (wide[e], narrow[e])), sizes.bound)


def _bf16_pair(sizes: _Sizes) -> Any:
    def make() -> tuple[Tensor, Tensor]:
        wide = sizes.random(sizes.E, 2 * sizes.I, sizes.D).mul_(sizes.D**-0.5).to(sizes.dtype)
        return wide, sizes.random(sizes.E, sizes.D, sizes.I).mul_(sizes.I**-0.5).to(sizes.dtype)

    return sizes.once("bf16", make)


def _fp8(sizes: _Sizes, index: Tensor, weight: Tensor, operands: Operands | None = None) -> dict[str, Any]:
    wide, narrow = sizes.once("fp8", lambda: _pair(sizes, float8_matrix))
    return _eight_bits(sizes, wide, narrow, index, weight, operands)


def _widened(sizes: _Sizes, index: Tensor, weight: Tensor) -> dict[str, Any]:
    return _fp8(sizes, index, weight, "widened")


def _int8(sizes: _Sizes, index: Tensor, weight: Tensor) -> dict[str, Any]:
    wide, narrow = sizes.once("int8", lambda: _pair(sizes, int8_matrix))
    return _eight_bits(sizes, wide, narrow, index, weight)


def _pair(sizes: _Sizes, make: Callable[..., Any]) -> Any:
    shapes = (sizes.E, 2 * sizes.I, sizes.D), (sizes.E, sizes.D, sizes.I)
    return [make(shape, sizes.device, sizes.generator) for shape in shapes]


def _words(sizes: _Sizes) -> dict[str, Any]:
    """Unpacking by NVIDIA's instructions and by shifts gives the same bits."""
    _, packed = _int4_pair(sizes)
    index, weight = sizes._routed(sizes.N, sizes.E)
    x = sizes.random(sizes.N, sizes.D).to(sizes.dtype)
    chosen = configs_of(*target_of(sizes.device), sizes.N * sizes.A / sizes.E, form="int4")
    if not chosen.words:
        return {"ok": True, "relative_error": 0.0, "bound": 0.0, "note": "this device has one way only"}
    wide, narrow = packed
    by_words, by_shifts = (
        experts_triton(x, index, weight, wide, narrow, configs=replace(chosen, words=words)) for words in (True, False)
    )
    return equal(by_words, by_shifts)


def _twice(sizes: _Sizes) -> dict[str, Any]:
    _, packed = _int4_pair(sizes)
    index, weight = sizes._routed(sizes.N, sizes.E)
    x = sizes.random(sizes.N, sizes.D).to(sizes.dtype)
    first, second = (experts_triton(x, index, weight, *packed) for _ in range(2))
    return equal(first, second)
