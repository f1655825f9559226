"""The mixture's kernels in Triton's interpreter, against the torch form of the weights that the integers stand for.

Whether kernels are interpreted is decided when Triton is imported, which something else may have done in this process.
So the cases, which are called `case_...`, run in a pytest of their own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from interpreted import mend
from redraft.kernels import experts as torch_form
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix, quantise_int4
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows

ORDERS = ("wgmma", "mma", "rows")
E = 5

# Rows, and how likely each expert is: blocks of all three widths, several blocks of one expert, an expert without rows.
ROUTINGS = {
    "uniform": (20, [1, 1, 1, 1, 1]),
    "skewed": (68, [1000, 1, 1, 1, 1]),
    "one without rows": (40, [1, 0, 1, 1, 1]),
    "one row": (1, [1, 1, 1, 1, 1]),
}
# Hidden and width: less than a tile, not a whole number of them in either direction, the real width.
SHAPES = [(32, 32), (160, 96), (64, 704)]


def test_under_the_interpreter():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("no Triton")
    command = [sys.executable, "-m", "pytest", __file__, "-o", "python_functions=case_*", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.fixture
def triton_form(monkeypatch):
    """The modules under test."""
    from redraft.kernels.triton import experts, grouping, packed
    from redraft.kernels.triton.configs import Configs
    from redraft.kernels.triton.rows import rounded

    mend(monkeypatch)
    return SimpleNamespace(experts=experts, group=grouping.group, packed=packed, Configs=Configs, rounded=rounded)


def routed(name, places=2):
    """(index, weight) of each row."""
    rows, likely = ROUTINGS[name]
    generator = torch.Generator().manual_seed(rows)
    index = torch.multinomial(torch.tensor(likely).float().expand(rows, E), places, generator=generator)
    return index, torch.rand(rows, places, generator=generator) + 0.1


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def matrices(hidden, width):
    """Int4 gate-up and down of E experts."""
    stacks = random(E, 2 * width, hidden) * hidden**-0.5, random(E, hidden, width) * width**-0.5
    for stack in stacks:
        data, scale, row_scale = (torch.stack(parts) for parts in zip(*map(quantise_int4, stack), strict=True))
        yield Int4Matrix(data=data, scale=scale, row_scale=row_scale)


def check(got, expected, tolerance=2e-6):
    """Both sum some hundreds of products in float32, in different orders: a few units of 2**-24 of a row's norm."""
    assert ((got - expected).norm(dim=-1) <= tolerance * expected.norm(dim=-1)).all()


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("hidden", "width"), [(32, 32), (160, 96)])
def case_packing_loses_nothing(triton_form, hidden, width, order, paired):
    wide, narrow = matrices(hidden, width)
    stored = wide if paired else narrow
    packed = triton_form.packed.pack_int4(stored, order=order, paired=paired)
    assert packed.shape == stored.shape
    again = triton_form.packed.unpack_int4(packed)
    assert torch.equal(again.data, stored.data)
    assert torch.equal(again.scale, stored.scale)
    assert torch.equal(again.row_scale, stored.row_scale)


@pytest.mark.parametrize("block", [32, 64])
@pytest.mark.parametrize("routing", ROUTINGS)
def case_the_table_holds_every_assignment_once(triton_form, routing, block):
    index, _ = routed(routing)
    order, table = triton_form.group(index, E, block)
    assert sorted(order.tolist()) == list(range(index.numel()))
    counts, covered = [0] * E, 0
    for expert, start, rows in table.tolist():
        if rows:
            assert rows <= block
            assert start == covered
            assert (index.flatten()[order[start : start + rows].long()] == expert).all()
            counts[expert] += rows
            covered += rows
    assert counts == torch.bincount(index.flatten(), minlength=E).tolist()


def case_many_assignments_take_several_chunks(triton_form):
    index = torch.randint(0, 3, (1500, 2), generator=torch.Generator().manual_seed(0))
    order, _ = triton_form.group(index, 3, 64)
    assert torch.equal(order.long(), index.flatten().argsort(stable=True))


@pytest.mark.parametrize("order", ORDERS)
def case_int4_in_every_order(triton_form, order):
    check_int4(triton_form, 96, 96, "skewed", order)


@pytest.mark.parametrize("routing", [name for name in ROUTINGS if name != "skewed"])
def case_int4_of_every_routing(triton_form, routing):
    check_int4(triton_form, 96, 96, routing, "wgmma")


@pytest.mark.parametrize(("hidden", "width"), SHAPES)
def case_int4_of_every_shape(triton_form, hidden, width):
    check_int4(triton_form, hidden, width, "one row", "wgmma")


def case_int4_in_small_blocks(triton_form):
    check_int4(triton_form, 32, 32, "skewed", "mma", triton_form.Configs(block=32))


def check_int4(triton_form, hidden, width, routing, order, configs=None):
    index, weight = routed(routing)
    x, (wide, narrow) = random(len(index), hidden), matrices(hidden, width)
    packed = [triton_form.packed.pack_int4(m, order=order, paired=m is wide) for m in (wide, narrow)]
    got = triton_form.experts.experts_triton(x, index, weight, *packed, configs=configs)
    check(got, torch_form.experts(x, index, weight, wide.all_dequantised(), narrow.all_dequantised()))


@pytest.mark.parametrize(
    ("hidden", "width", "routing"), [(64, 128, "uniform"), *((100, 36, routing) for routing in ROUTINGS)]
)
def case_float_weights(triton_form, hidden, width, routing):
    index, weight = routed(routing)
    x, wide, narrow = random(len(index), hidden), random(E, 2 * width, hidden) / 8, random(E, hidden, width) / 8
    got = triton_form.experts.experts_triton(x, index, weight, wide, narrow)
    check(got, torch_form.experts(x, index, weight, wide, narrow))


@pytest.mark.parametrize(
    ("hidden", "width", "routing"), [(64, 128, "uniform"), (100, 36, "skewed"), (33, 5, "one row")]
)
def case_float8_weights(triton_form, hidden, width, routing):
    index, weight = routed(routing)
    x = random(len(index), hidden)
    wide, narrow = (
        Float8Matrix.of(random(E, *shape) / 8) for shape in ((2 * width, hidden), (hidden, width))
    )  # fmt: skip
    got = triton_form.experts.experts_triton(x, index, weight, wide, narrow)
    check(got, torch_form.experts(x, index, weight, wide.dequantised(), narrow.dequantised()))


def eight_bits(values, kind):
    """What is left of values once they are rounded, row by row, to a kind of 8 bits."""
    if kind == torch.int8:
        data, scale = quantise_rows(values.flatten(0, -2))
    else:
        rounded = Float8Matrix.of(values.flatten(0, -2))
        data, scale = rounded.data, rounded.scale
    return (data.float() * scale[:, None]).view_as(values)


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn], ids=["int8", "float8"])
@pytest.mark.parametrize(
    ("hidden", "width", "routing"),
    [
        (128, 128, "uniform"), (100, 36, "skewed"), (33, 5, "one row"), (160, 96, "one without rows"),
        (264, 200, "skewed"),
    ],
)  # fmt: skip
def case_eight_bits_times_eight_bits(triton_form, hidden, width, routing, kind):
    """Against the same roundings in torch: of rows, and of 64 units of what lies between the products."""
    index, weight = routed(routing)
    x = random(len(index), hidden)
    x[0] = 0
    shapes = (2 * width, hidden), (hidden, width)
    of = Float8Matrix.of if kind == torch.float8_e4m3fn else stacked_int8
    wide, narrow = (of(random(E, *shape) / 8) for shape in shapes)
    got = triton_form.experts.experts_triton(x, index, weight, wide, narrow, operands="float8")
    rows, up, down = eight_bits(x, kind), wide.dequantised(), narrow.dequantised()
    expected = torch.zeros_like(x)
    for n, (experts, shares) in enumerate(zip(index.tolist(), weight.tolist(), strict=True)):
        for expert, share in zip(experts, shares, strict=True):
            gate, other = (up[expert] @ rows[n]).chunk(2)
            units = torch.nn.functional.gelu(gate, approximate="tanh") * other
            units = torch.cat([eight_bits(part[None], kind)[0] for part in units.split(64)])
            expected[n] += share * (down[expert] @ units)
    assert not got[0].any()
    # A unit may fall on the other side of a half: a step of its own, of one in some dozens.
    check(got[1:], expected[1:], 2e-2)
    assert ((got - expected).abs() < 1e-5).float().mean() > 0.8
    exact = torch_form.experts(x, index, weight, up, down)
    check(got[1:], exact[1:], 0.03 if kind == torch.int8 else 0.12)
    given = triton_form.rounded(x, kind)
    outputs = triton_form.experts.expert_outputs(given, index, weight, wide, narrow, x.dtype)
    assert torch.equal(outputs.sum(1), got) or torch.allclose(outputs.sum(1), got, atol=1e-6)


def case_units_whose_scale_has_no_reciprocal_are_zeros(triton_form, monkeypatch):
    module, launch, seen = triton_form.experts, triton_form.experts.launch, []
    monkeypatch.setattr(module, "launch", lambda *given, **how: (launch(*given, **how), seen.append(given)))
    wide = torch.zeros(1, 12, 32)
    # gelu(-10.04) is 1e-36, times a thousandth; the first unit is zero.
    wide[0, :6, 0], wide[0, 7:, 0] = -1.0, 1e-4
    stacks = Float8Matrix.of(wide), Float8Matrix.of(random(1, 32, 6))
    given = triton_form.rounded(torch.eye(32)[:1] * 10.04, torch.float8_e4m3fn)
    routed_so = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)
    assert not module.expert_outputs(given, *routed_so, *stacks, torch.float32).any()
    gated = seen[0][9]
    assert gated.shape == (1, 6)
    assert not gated.float().any()


def stacked_int8(stack):
    data, scale = quantise_rows(stack.flatten(0, 1))
    return Int8Matrix(data=data.view_as(stack), scale=scale.view(stack.shape[:-1]))


def case_no_rows(triton_form):
    empty = torch.empty(0, 2, dtype=torch.long)
    wide, narrow = random(E, 64, 32), random(E, 32, 32)
    assert triton_form.experts.experts_triton(random(0, 32), empty, empty.float(), wide, narrow).shape == (0, 32)


def case_a_cpu_has_no_such_form(triton_form):
    assert not torch_form.on_gpu(torch.empty(1))


@pytest.fixture
def as_on_a_gpu(triton_form, monkeypatch):
    monkeypatch.setattr(torch_form, "on_gpu", lambda *_: True)
    monkeypatch.setattr("redraft.kernels.triton.fallback._failed", set())
    return triton_form


def case_the_torch_form_picks_it_for_bfloat16(as_on_a_gpu):
    index, weight = routed("one row")
    x, (wide, narrow) = random(len(index), 64).bfloat16(), matrices(64, 96)
    floats = [matrix.all_dequantised() for matrix in (wide, narrow)]
    expected = torch_form.experts(x.float(), index, weight, *floats)
    int4 = torch_form.experts_int4(x, index, weight, wide, narrow)
    bf16 = torch_form.experts(x, index, weight, *(stack.bfloat16() for stack in floats))
    eight = [Float8Matrix.of(stack) for stack in floats]
    int8 = [stacked_int8(stack) for stack in floats]
    check(torch_form.experts_int8(x, index, weight, *int8).float(), expected, 3e-2)
    fp8 = torch_form.experts_float8(x, index, weight, *eight)
    check(
        fp8.float(),
        torch_form.experts(x.float(), index, weight, *(m.dequantised() for m in eight)),
        3 * 2**-8,
    )
    for got in (int4, bf16):
        assert got.dtype == torch.bfloat16
        # Three roundings to bfloat16, which the interpreter cuts off: 2**-8 each.
        check(got.float(), expected, 3 * 2**-8)


def case_a_kernel_that_fails_is_named_once(as_on_a_gpu, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such instruction\nand much more")

    monkeypatch.setattr(as_on_a_gpu.experts, "experts_triton", broken)
    index, weight = routed("one row")
    x, (wide, narrow) = random(len(index), 64).bfloat16(), matrices(64, 96)
    with pytest.warns(UserWarning, match="experts_int4 does not run here.*no such instruction$"):
        first = torch_form.experts_int4(x, index, weight, wide, narrow)
    packed = [as_on_a_gpu.packed.pack_int4(m, order="mma", paired=m is wide) for m in (wide, narrow)]
    # Packed weights are unpacked for torch's form; pytest makes a second warning an error.
    assert torch.equal(first, torch_form.experts_int4(x, index, weight, *packed))


def case_missing_memory_is_not_a_missing_kernel(as_on_a_gpu, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(as_on_a_gpu.experts, "experts_triton", full)
    index, weight = routed("one row")
    with pytest.raises(torch.OutOfMemoryError):
        torch_form.experts(*(x.bfloat16() if x.is_floating_point() else x for x in (
            random(1, 32), index, weight, random(E, 64, 32), random(E, 32, 32)
        )))  # fmt: skip
