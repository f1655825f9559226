"""What a layer does between its products, in Triton's interpreter, against the modules that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.kernels.matrices.float8 import Float8Matrix
    from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
    from redraft.kernels.norm import rms_norm
    from redraft.kernels.triton import dense, rows
    from redraft.kernels.triton.router import route
    from redraft.kernels.triton.rows import Rows

interpreted = loop_bounds
EPS = 1e-6
DTYPES = [None, torch.int8, torch.float8_e4m3fn]
NAMES = ["floats", "int8", "float8"]
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=NAMES)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


def read(found: Rows):
    """The floats that rows stand for."""
    if found.scale is None:
        return found.values
    return found.values.float() * found.scale[:, None]


def assert_rows(found: Rows, expected, dtype):
    """Rows of a dtype that are those expected, rounded by one of its steps at most."""
    assert found.values.dtype == (dtype or expected.dtype)
    step = {None: 1e-5, torch.int8: 1.01 / 254, torch.float8_e4m3fn: 2**-4 + 1e-3}[dtype]
    largest = expected.abs().amax(-1, keepdim=True) if dtype == torch.int8 else expected.abs()
    least = 1e-5 + expected.abs().amax(-1, keepdim=True) * (2**-9 / 448 if dtype == torch.float8_e4m3fn else 0)
    assert ((read(found) - expected).abs() <= step * largest + least).all()
    if dtype is not None:
        torch.testing.assert_close(found.scale, expected.abs().amax(-1) / rows.MOST[dtype])


@by_dtype
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (5, 128)])
def test_rounded(shape, dtype):
    x = random(*shape)
    x[0] = 0
    assert_rows(rows.rounded(x, dtype), x, dtype)
    wide = torch.cat([x, x], dim=1)
    assert torch.equal(read(rows.rounded(wide[:, : shape[1]], dtype)), read(rows.rounded(x, dtype)))


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=NAMES[1:])
def test_hardly_anything_is_nothing(dtype):
    x = torch.tensor([[1e-38, 0.0, -1e-39]])
    assert read(rows.rounded(x, dtype)).abs().max() < 1e-30


@by_dtype
def test_norm_rounded(dtype):
    x, weight = random(5, 33), random(33)
    assert_rows(rows.norm_rounded(x, weight, EPS, dtype), rms_norm(x, weight, EPS), dtype)
    zeros = rows.norm_rounded(torch.zeros(2, 33), weight, EPS, dtype)
    assert not read(zeros).any()


@by_dtype
@pytest.mark.parametrize("parts", [1, 3])
def test_gate_rounded(dtype, parts):
    gate_up = random(parts, 5, 46)
    gate, up = gate_up.sum(0).chunk(2, dim=-1)
    expected = F.gelu(gate, approximate="tanh") * up
    assert_rows(rows.gate_rounded(gate_up, expected, dtype), expected, dtype)


@by_dtype
@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("normed", [True, False])
def test_begin(dtype, integer, parts, normed):
    table, weight, tokens = random(19, 33), random(33), torch.tensor([3, 18, 0, 3])
    scale = torch.tensor(33**0.5)
    conditioning = random(parts, 4, 33) if parts else None
    embedding = Int8Matrix.of(table) if integer else table
    embedded = (embedding.dequantised() if integer else table)[tokens] * scale
    if conditioning is not None:
        embedded = embedded + conditioning.sum(0)
    expected = rms_norm(embedded, None, EPS) if normed else embedded
    hidden, found = rows.begin(
        tokens, embedding, scale, conditioning, rows.NextNorm(weight=weight, dtype=dtype), EPS, normed=normed
    )  # fmt: skip
    torch.testing.assert_close(hidden, expected)
    assert_rows(found, rms_norm(expected, weight, EPS), dtype)


@by_dtype
@pytest.mark.parametrize("other", DTYPES, ids=NAMES)
@pytest.mark.parametrize("parts", [1, 3])
def test_middle(dtype, other, parts):
    attended, hidden = random(parts, 5, 33), random(5, 33, seed=1)
    post, dense_weight, expert_weight, router = (random(33, seed=seed) for seed in range(4))
    weights = rows.MiddleWeights(
        post_attention=post, pre_dense=dense_weight, pre_experts=expert_weight, router=router
    )  # fmt: skip
    expected = hidden + rms_norm(attended.sum(0), post, EPS)
    new, dense_rows, expert_rows, router_rows = rows.middle(attended, hidden, weights, EPS, dtype, other)
    torch.testing.assert_close(new, expected)
    assert_rows(dense_rows, rms_norm(expected, dense_weight, EPS), dtype)
    assert_rows(expert_rows, rms_norm(expected, expert_weight, EPS), other)
    torch.testing.assert_close(router_rows, rms_norm(expected, None, EPS) * router * 33**-0.5)


@by_dtype
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("places", [1, 3])
def test_end(dtype, parts, places):
    outputs, dense_parts, hidden = random(5, places, 33), random(parts, 5, 33), random(5, 33, seed=1)
    post_experts, post_dense, post, following = (random(33, seed=seed) for seed in range(4))
    scalar = torch.tensor([0.7])
    weights = rows.EndWeights(post_experts=post_experts, post_dense=post_dense, post=post, scalar=scalar)
    both = rms_norm(dense_parts.sum(0), post_dense, EPS) + rms_norm(outputs.sum(1), post_experts, EPS)
    expected = (hidden + rms_norm(both, post, EPS)) * scalar
    new, found = rows.end(
        outputs, dense_parts, hidden, weights, rows.NextNorm(weight=following, dtype=dtype), EPS
    )  # fmt: skip
    torch.testing.assert_close(new, expected)
    assert_rows(found, rms_norm(expected, following, EPS), dtype)


@pytest.mark.parametrize(("count", "columns", "experts", "top_k"), [(1, 8, 4, 2), (18, 70, 5, 3), (33, 600, 128, 8)])
def test_the_router(count, columns, experts, top_k):
    x, weight, scale = random(count, columns), random(experts, columns), random(experts, seed=1).abs()
    index, found = route(x, weight, scale, top_k)
    shares, expected = torch.softmax(F.linear(x, weight), dim=-1).topk(top_k)
    assert torch.equal(index.long(), expected)
    torch.testing.assert_close(found, shares / shares.sum(-1, keepdim=True) * scale[expected])
    assert index.dtype == torch.int32
    assert found.dtype == torch.float32


def test_of_equal_experts_the_first_is_chosen():
    weight = torch.zeros(6, 8)
    weight[4] = 1.0
    index, found = route(torch.ones(2, 8), weight, torch.ones(6), 3)
    assert index.tolist() == [[4, 0, 1]] * 2
    torch.testing.assert_close(found.sum(-1), torch.ones(2))


def test_a_row_that_is_not_finite_has_experts_that_exist():
    x = torch.ones(3, 8)
    x[1] = float("nan")
    with np.errstate(invalid="ignore"):
        index, found = route(x, random(6, 8), torch.ones(6), 3)
    assert ((index >= 0) & (index < 6)).all()
    assert found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("operands", ["int8", "float8", "widened"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 600, 7), (18, 2112, 70)])
def test_parts_add_up_to_the_product(operands, shape):
    count, columns, matrix_rows = shape
    x, weight = random(count, columns), random(matrix_rows, columns) * columns**-0.5
    given = rows.rounded(x, dense.ROUNDED[operands])
    if operands == "int8":
        data, scale = quantise_rows(weight)
        meant = data.float() * scale[:, None]
    else:
        matrix = Float8Matrix.of(weight)
        data, scale, meant = matrix.data, matrix.scale, matrix.dequantised()
    expected = (read(given).double() @ meant.double().T).float()
    found = dense.dense_parts(given, data, scale, operands, torch.float32)
    assert (len(found) > 1) == (columns > 500), "whole tiles are few"
    assert all(part.any() for part in found)
    torch.testing.assert_close(found.sum(0), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        dense.dense_product(given, data, scale, operands, torch.float32), expected, atol=1e-5, rtol=1e-4
    )
