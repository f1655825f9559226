"""Int4 matrices and their products, in C++ and in torch."""

from __future__ import annotations

import pytest
import torch

from other_machines import MACHINES, built_for, in_its_place
from redraft.kernels.experts import experts, experts_int4
from redraft.kernels.int4 import int4_products
from redraft.kernels.matrices.int4 import Int4Matrix, code_of, quantise_int4, scale_of
from redraft.kernels.native import build

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(8, 32), (24, 96), (64, 704)]


@pytest.fixture(params=["native", "torch"])
def form(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr("redraft.kernels.native.call.library", lambda _: None)
    elif build.library("int4") is None:
        pytest.skip("no compiler")


def matrix(rows, columns, seed=0):
    """Rows, and groups inside them, of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    weight *= 10.0 ** (4 * torch.rand(rows, 1, generator=generator) - 2)
    return weight * torch.rand(1, columns // 32, generator=generator).exp().repeat_interleave(32, dim=1)


def integers(rows, columns):
    return torch.randint(-127, 128, (rows, columns), generator=torch.Generator().manual_seed(3)).to(torch.int8)


def stacked(*weights):
    data, scale, row_scale = (torch.stack(parts) for parts in zip(*map(quantise_int4, weights), strict=True))
    return Int4Matrix(data=data, scale=scale, row_scale=row_scale)


def test_scales_are_the_values_of_their_bytes():
    codes = torch.arange(256, dtype=torch.uint8)
    values = scale_of(codes)
    expected = [(1 + c % 16 / 16) * 2.0 ** (c // 16 % 8 - 7) * (-1 if c >= 128 else 1) for c in range(256)]
    assert values.tolist() == expected
    assert torch.equal(code_of(values), codes)
    assert scale_of(code_of(torch.tensor([0.0, 9.0, -9.0]))).tolist() == [2.0**-7, 31 / 16, -31 / 16]


def test_products_with_a_scale_are_exact_in_bfloat16():
    products = torch.arange(-8, 8)[:, None] * scale_of(torch.arange(256, dtype=torch.uint8))
    assert torch.equal(products.bfloat16().float(), products)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_rounding_loses_less_than_nearest_does(form, rows, columns):
    weight = matrix(rows, columns)
    error = stacked(weight).dequantised(0) - weight
    groups = weight.view(rows, -1, 32)
    # Nearest with one positive scale a group, in full precision.
    step = groups.abs().amax(-1, keepdim=True) / 7.5
    nearest = (groups / step).round().clamp(-8, 7) * step - groups
    assert error.norm() < 0.92 * nearest.norm()
    assert error.norm() / weight.norm() < 0.1


def test_both_forms_make_the_same_bytes(monkeypatch):
    if build.library("int4") is None:
        pytest.skip("no compiler")
    weight, importance = matrix(64, 704), torch.rand(704)
    native = [quantise_int4(weight), quantise_int4(weight, importance)]
    monkeypatch.setattr("redraft.kernels.native.call.library", lambda _: None)
    reference = [quantise_int4(weight), quantise_int4(weight, importance)]
    for seen, expected in zip(native, reference, strict=True):
        # Sums in another order may choose another of two scales that lose the same.
        assert (seen[1] != expected[1]).float().mean() < 0.002
        torch.testing.assert_close(seen[2], expected[2])
    assert not torch.equal(native[0][1], native[1][1])


def test_importance_moves_the_error_to_where_it_weighs_least(form):
    weight, importance = matrix(64, 704), torch.ones(704)
    importance[::4] = 100.0
    plain, steered = stacked(weight), quantise_int4(weight, importance)
    steered = Int4Matrix(data=steered[0][None], scale=steered[1][None], row_scale=steered[2][None])

    def loss(made):
        return ((made.dequantised(0) - weight).square() * importance).sum()

    assert loss(steered) < loss(plain)


def test_zeros_stay_zero(form):
    weight = matrix(8, 64)
    weight[3], weight[5, :32] = 0, 0
    made = stacked(weight).dequantised(0)
    assert not made[3].any()
    assert not made[5, :32].any()


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("counts", [[1, 0, 7], [4, 5, 16], [8, 9, 29], [0, 0, 0]])
def test_products_are_those_of_what_the_integers_stand_for(form, rows, columns, counts):
    made = stacked(*(matrix(rows, columns, seed) for seed in range(3)))
    values = integers(sum(counts), columns)
    got = int4_products(values, counts, made)
    assert got.shape == (sum(counts), rows)
    for e, (part, seen) in enumerate(zip(values.split(counts), got.split(counts), strict=True)):
        weights = made.dequantised(e).double().T
        # Terms cancel, so the error is measured against the sum of their sizes.
        assert ((seen - part.double() @ weights).abs() <= 1e-6 * (part.double().abs() @ weights.abs())).all()


def test_extremes_do_not_overflow(form):
    weight = torch.full((8, 64), -1.0)
    weight[::2] = 1.0
    made = stacked(weight)
    values = torch.full((5, 64), 127, dtype=torch.int8)
    values[1] = -127
    torch.testing.assert_close(int4_products(values, [5], made), values.float() @ made.dequantised(0).T)


def test_a_row_does_not_depend_on_its_company():
    if build.library("int4") is None:
        pytest.skip("no compiler, and torch's own products depend on how many rows there are")
    made = stacked(matrix(24, 96), matrix(24, 96, seed=1))
    values = integers(9, 96)
    together = int4_products(values, [4, 5], made)
    for row, expert in ((0, 0), (3, 0), (4, 1), (8, 1)):
        alone = int4_products(values[row : row + 1], [1 - expert, expert], made)
        assert torch.equal(alone[0], together[row])


def mixture(rows, picks, columns=64, width=32, count=4):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(rows, columns, generator=generator)
    wide = torch.randn(count, 2 * width, columns, generator=generator) * columns**-0.5
    narrow = torch.randn(count, columns, width, generator=generator) * width**-0.5
    index = torch.stack([torch.randperm(count, generator=generator)[:picks] for _ in range(rows)])
    return x, index, torch.rand(rows, picks, generator=generator), stacked(*wide), stacked(*narrow)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "picks", "columns", "width"), [(1, 1, 32, 32), (21, 2, 64, 32), (50, 3, 96, 160)])
def test_experts_agree_with_the_float_ones(form, rows, picks, columns, width, dtype):
    x, index, weight, wide, narrow = mixture(rows, picks, columns, width)
    got = experts_int4(x.to(dtype), index, weight, wide, narrow)
    assert got.dtype == dtype
    expected = experts(x, index, weight, wide.all_dequantised(), narrow.all_dequantised())
    # What is left is the rounding of the activations to int8, twice.
    assert (got.float() - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("name", MACHINES)
def test_experts_in_one_call_are_those_of_products_one_by_one(name, tmp_path, monkeypatch):
    in_its_place(built_for(name, "int4", tmp_path), "int4", monkeypatch)
    given = mixture(50, 3, 96, 160)
    got = experts_int4(*given)
    monkeypatch.setattr("redraft.kernels.experts.runs_int4", lambda *_: False)
    torch.testing.assert_close(got, experts_int4(*given), rtol=1e-5, atol=1e-5)


def test_company_and_threads_change_no_bit_of_a_mixture():
    if build.library("int4") is None:
        pytest.skip("no compiler")
    x, index, weight, *stacks = mixture(19, 2)
    together = experts_int4(x, index, weight, *stacks)
    alone = [experts_int4(x[n : n + 1], index[n : n + 1], weight[n : n + 1], *stacks)[0] for n in range(19)]
    assert torch.equal(torch.stack(alone), together)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(64)
        assert torch.equal(experts_int4(x, index, weight, *stacks), together)
    finally:
        torch.set_num_threads(threads)


def test_a_nan_stays_in_its_row():
    x, index, weight, *stacks = mixture(9, 2)
    x[4, 7] = float("nan")
    finite = experts_int4(x, index, weight, *stacks).isfinite().all(-1)
    assert (~finite).nonzero().flatten().tolist() == [4]


def test_experts_of_nothing_are_nothing(form):
    x, index, weight, *stacks = mixture(3, 2)
    assert experts_int4(x[:0], index[:0], weight[:0], *stacks).shape == (0, 64)


def test_experts_of_another_width_are_refused():
    if build.library("int4") is None:
        pytest.skip("no compiler")
    x, index, weight, wide, narrow = mixture(3, 2)
    with pytest.raises(ValueError, match="expected"):
        experts_int4(x[:, :32].contiguous(), index, weight, wide, narrow)
    with pytest.raises(ValueError, match="expected"):
        experts_int4(x, index, weight, wide, stacked(torch.randn(64, 64)))


def test_a_shape_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="16 x 48 does not divide"):
        quantise_int4(torch.randn(16, 48))
