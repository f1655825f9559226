"""Products by dot products of four bytes, in every form that a CPU may have them."""

from __future__ import annotations

import ctypes

import pytest
import torch

from emulated import carried
from other_machines import MACHINES, built_for, in_its_place
from redraft.kernels.dots import dot_lanes, dots_experts, dots_linear, dots_product, pack, unpack
from redraft.kernels.experts import experts_int8
from redraft.kernels.int8 import PackedInt8, PackedStack
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows, quantise_unsigned

# Columns of one quad, of a part of one and of many; rows of less than a block and more than one.
SHAPES = [(1, 1, 1), (3, 7, 5), (6, 32, 16), (7, 64, 33), (13, 130, 200), (33, 96, 64)]


@pytest.fixture(autouse=True)
def there():
    if not dot_lanes():
        pytest.skip("no such products here")


@pytest.fixture(scope="module", params=[*MACHINES, "AVX-VNNI"])
def machine(request, tmp_path_factory):
    """The library as another machine would build it."""
    return built_for(request.param, "dots", tmp_path_factory.mktemp("dots"))


@pytest.fixture
def on_it(machine, monkeypatch):
    """This process, as if it ran there. One that says that it has no such products makes them all the same."""
    lanes = torch.zeros(1, dtype=torch.int64)
    machine.dots_lanes(carried(lanes), ctypes.c_int64(1))
    in_its_place(machine, "dots", monkeypatch)
    monkeypatch.setattr("redraft.kernels.dots._lanes", lambda: int(lanes) or 8)


def integers(*shape, seed=0):
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


def floats(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mixture(rows, picks, experts=6, width=32, columns=44, seed=0):
    """(x, index, weight, wide, narrow)."""
    draw = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randperm(experts, generator=draw)[:picks] for _ in range(rows)])
    weight = torch.rand(rows, picks, generator=draw)
    wide, narrow = (
        Int8Matrix(data=integers(experts, *shape, seed=seed), scale=0.01 * floats(experts, shape[0]).abs())
        for shape in ((2 * width, columns), (columns, width))
    )
    return floats(rows, columns, seed=seed + 1), index, weight, wide, narrow


@pytest.mark.parametrize(("rows", "columns", "outputs"), SHAPES)
def test_products_are_exact(on_it, rows, columns, outputs):
    matrix = integers(outputs, columns, seed=1)
    matrix[0], matrix[-1] = 127, -127
    data, zeros = pack(matrix[None])
    assert torch.equal(unpack(data[0], outputs, columns), matrix)
    values = integers(rows, columns)
    values[0] = -127
    expected = (values.long() @ matrix.long().T).float()
    for given in (values, values.view(torch.uint8) ^ 128):
        assert torch.equal(dots_product(given, data[0], zeros[0], torch.ones(outputs)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns", "outputs"), SHAPES)
def test_rows_are_rounded_as_they_come(on_it, rows, columns, outputs, dtype):
    matrix, scale = integers(outputs, columns, seed=1), floats(outputs, seed=2).abs()
    data, zeros = pack(matrix[None])
    x = floats(rows, columns).to(dtype)
    values, row_scale = quantise_unsigned(x)
    expected = dots_product(values, data[0], zeros[0], scale) * row_scale[:, None]
    got = dots_linear(x, data[0], zeros[0], scale)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected.to(dtype), rtol=1e-6 if dtype == torch.float32 else 2**-8, atol=0)


@pytest.mark.parametrize(("rows", "picks"), [(1, 1), (1, 3), (2, 6), (9, 2), (40, 3)])
def test_a_mixture_is_what_its_matrices_make_one_by_one(on_it, rows, picks):
    x, index, weight, wide, narrow = mixture(rows, picks)
    stacks = [PackedStack.of(stack) for stack in (wide, narrow)]
    got = experts_int8(x, index, weight, *stacks)
    plain = [PackedInt8.parts(stack) for stack in (wide, narrow)]
    expected = experts_int8(x, index, weight, *plain)
    # A value between two steps may be rounded to either.
    step = 1.5 * (weight.sum(1).max() * narrow.scale.max() * 127 * expected.abs().max() / 127).item()
    assert ((got - expected).abs() <= step).all()
    assert (got - expected).abs().median() <= 1e-6 * expected.abs().max()


def test_width_that_does_not_divide_into_blocks_goes_one_by_one(on_it):
    x, index, weight, wide, narrow = mixture(5, 2, width=10)
    stacks = [PackedStack.of(stack) for stack in (wide, narrow)]
    expected = experts_int8(x, index, weight, *[PackedInt8.parts(stack) for stack in (wide, narrow)])
    torch.testing.assert_close(experts_int8(x, index, weight, *stacks), expected, rtol=0.02, atol=0.02)
    with pytest.raises(ValueError, match="do not meet"):
        dots_experts(x, index, weight, *[stack.parts for stack in stacks])


def test_company_changes_no_bit():
    x, index, weight, wide, narrow = mixture(23, 2)
    stacks = [PackedStack.of(stack) for stack in (wide, narrow)]
    together = experts_int8(x, index, weight, *stacks)
    for n in range(len(x)):
        alone = experts_int8(x[n : n + 1], index[n : n + 1], weight[n : n + 1], *stacks)
        assert torch.equal(alone[0], together[n])


def test_threads_change_no_bit():
    x, index, weight, wide, narrow = mixture(23, 2)
    stacks, threads, found = [PackedStack.of(stack) for stack in (wide, narrow)], torch.get_num_threads(), []
    try:
        for count in (1, 2, 64):
            torch.set_num_threads(count)
            found.append(experts_int8(x, index, weight, *stacks))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_nothing_of_nothing():
    x, index, weight, wide, narrow = mixture(1, 2)
    stacks = [PackedStack.of(stack) for stack in (wide, narrow)]
    assert experts_int8(x[:0], index[:0], weight[:0], *stacks).shape == (0, x.shape[1])
    assert dots_linear(x[:0], *[part[0] for part in stacks[0].parts]).shape == (0, 64)


def test_a_nan_stays_in_its_row():
    x, index, weight, wide, narrow = mixture(9, 2)
    x[4, 3] = float("nan")
    got = experts_int8(x, index, weight, *[PackedStack.of(stack) for stack in (wide, narrow)])
    assert got.isfinite().all(1).tolist() == [n != 4 for n in range(9)]


def test_a_matrix_of_a_stack_is_the_one_that_was_packed():
    _, _, _, wide, _ = mixture(1, 1)
    stack = PackedStack.of(wide)
    assert len(stack) == len(wide.data)
    for n, one in enumerate(stack):
        assert torch.equal(one.unpacked().data, wide.data[n])
        assert torch.equal(one.unpacked().scale, wide.scale[n])


def test_rows_of_another_width_are_refused():
    data, zeros = pack(integers(16, 64)[None])
    scale = torch.ones(16)
    with pytest.raises(ValueError, match="do not meet"):
        dots_linear(floats(2, 8), data[0], zeros[0], scale)
    with pytest.raises(ValueError, match="the rows"):
        dots_product(quantise_rows(floats(2, 8))[0], data[0], zeros[0], scale)
