"""Products of frozen matrices with gradients, and what adapters add to them, against autograd on widened weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from packed_int8 import packed_as
from redraft.kernels import widened
from redraft.kernels.cross_entropy import weighted_cross_entropy
from redraft.kernels.experts import experts
from redraft.kernels.int8 import PackedInt8
from redraft.kernels.low_rank import Factors, adapted_experts
from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix, quantise_int4
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton.packed import pack_int4
from redraft.kernels.widened import widened_linear, widened_products

# The matrices are seven tiles of this size in float32.
SMALL_TILE = 4 * 64 * 8
E, R, K, RANK = 4, 48, 64, 3

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def int4(stack):
    data, scale, row_scale = (torch.stack(part) for part in zip(*map(quantise_int4, stack), strict=True))
    return Int4Matrix(data=data, scale=scale, row_scale=row_scale)


def blocks(matrix):
    """The layout of `int8.cpp`, which this machine may have no compiler for."""
    R, K = matrix.data.shape
    padded = F.pad(matrix.data, (0, -K % 16, 0, -R % 8))
    data = padded.view(-1, 8, padded.shape[1] // 2, 2).transpose(1, 2).reshape(len(padded) // 8, -1, 8)
    return PackedInt8(data=data.contiguous(), scale=matrix.scale, columns=K, layout="blocks")


MATRICES = {
    "float": lambda w: w,
    "int8": Int8Matrix.of,
    "onednn": lambda w: packed_as(w, "onednn"),
    "blocks": lambda w: blocks(Int8Matrix.of(w)),
    "plain": lambda w: packed_as(w, "plain"),
    "fp8": Float8Matrix.of,
}
STACKS = {
    "float": lambda w: w,
    "int4": int4,
    "packed int4": lambda w: pack_int4(int4(w), order="mma", paired=True),
    "int8": lambda w: Int8Matrix(
        data=torch.stack([Int8Matrix.of(part).data for part in w]),
        scale=torch.stack([Int8Matrix.of(part).scale for part in w]),
    ),
    "packed int8": lambda w: [PackedInt8.of(Int8Matrix.of(part)) for part in w],
    "fp8": Float8Matrix.of,
}


def wide(form, weight, dtype):
    """The matrices that a form stands for, by ways of their own."""
    if form == "float":
        return weight.to(dtype)
    if "int4" in form:
        return int4(weight).all_dequantised().to(dtype)
    matrix = Float8Matrix.of(weight) if form == "fp8" else None
    if matrix is None:
        parts = weight if weight.ndim == 3 else weight[None]
        found = torch.stack([Int8Matrix.of(part).dequantised(dtype) for part in parts])
        return found if weight.ndim == 3 else found[0]
    return matrix.dequantised(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", MATRICES)
def test_a_linear_product_is_autograds_on_the_widened_matrix(form, dtype):
    weight = noise(R, K)
    x, y = (noise(2, 5, K, seed=1, dtype=dtype).requires_grad_() for _ in range(2))
    grad = noise(2, 5, R, seed=2, dtype=dtype)
    got, expected = widened_linear(x, MATRICES[form](weight)), F.linear(y, wide(form, weight, dtype))
    got.backward(grad)
    expected.backward(grad)
    assert torch.equal(got, expected)
    assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize("form", ["onednn", "fp8"])
def test_sums_over_tiles_are_near(form, monkeypatch):
    weight, x = noise(R, K), noise(9, K, seed=1).requires_grad_()
    whole = widened_linear(x, MATRICES[form](weight))
    grad = noise(9, R, seed=2)
    [expected] = torch.autograd.grad(whole, x, grad)
    monkeypatch.setattr(widened, "TILE_BYTES", SMALL_TILE)
    assert len(list(widened.tiles(MATRICES[form](weight), torch.float32))) == 6
    tiled = widened_linear(x, MATRICES[form](weight))
    [got] = torch.autograd.grad(tiled, x, grad)
    assert (tiled - whole).norm() / whole.norm() < 1e-6
    assert 0 < (got - expected).norm() / expected.norm() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", STACKS)
def test_products_of_experts_are_autograds_on_the_widened_stack(form, dtype):
    weight, counts = noise(E, R, K), [3, 0, 7, 1]
    x, y = (noise(11, K, seed=1, dtype=dtype).requires_grad_() for _ in range(2))
    grad = noise(11, R, seed=2, dtype=dtype)
    got, stack = widened_products(x, counts, STACKS[form](weight)), wide(form, weight, dtype)
    pairs = zip(y.split(counts), stack, strict=True)
    expected = torch.cat([F.linear(part, matrix) for part, matrix in pairs if len(part)])
    got.backward(grad)
    expected.backward(grad)
    assert torch.equal(got, expected)
    assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize("form", ["onednn", "fp8"])
def test_nothing_is_saved_for_the_backward_pass(form):
    saved = []
    x = noise(5, K).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        widened_linear(x, MATRICES[form](noise(R, K))).sum()
        widened_products(x, [2, 3, 0, 0], STACKS["int4"](noise(E, R, K))).sum()
    assert saved == []


def factors(*, shared, dtype=torch.float64):
    """Of gate-up [E, 2I, D] and down [E, D, I], with D = K and I = R / 2."""
    first, last = (1, 1) if shared else (E, E)
    shapes = [(first, RANK, K), (E, R, RANK), (E, RANK, R // 2), (last, K, RANK)]
    made = [noise(*shape, seed=n, dtype=dtype).requires_grad_() for n, shape in enumerate(shapes)]
    return made, (Factors(a=made[0], b=made[1], scale=0.5), Factors(a=made[2], b=made[3], scale=2.0))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("only", [None, 0, 1])
def test_adapted_experts_are_experts_whose_weights_are_changed(shared, only):
    """Gradients of factors, rows and the weights of the choice, in float64."""
    stacks = noise(E, R, K, dtype=torch.float64), noise(E, K, R // 2, seed=1, dtype=torch.float64)
    index = torch.stack([torch.randperm(3, generator=torch.Generator().manual_seed(n))[:2] for n in range(9)])
    grad = noise(9, K, seed=8, dtype=torch.float64)

    def run(adapted):
        made, pairs = factors(shared=shared)
        pairs = [pair if only in (None, number) else None for number, pair in enumerate(pairs)]
        x = noise(9, K, seed=6, dtype=torch.float64).requires_grad_()
        weight = noise(9, 2, seed=7, dtype=torch.float64).requires_grad_()
        if adapted:
            out = adapted_experts(x, index, weight, stacks, E, *pairs)
        else:
            changed = [
                stack if pair is None else stack + pair.b @ pair.a * pair.scale
                for stack, pair in zip(stacks, pairs, strict=True)
            ]
            out = experts(x, index, weight, *changed)
        out.backward(grad)
        return [out, x.grad, weight.grad, *(f.grad for f in made if f.grad is not None)]

    got, expected = run(True), run(False)
    assert len(got) == len(expected) == (5 if only is not None else 7)
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).norm() < 1e-12 * theirs.norm()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("form", ["int4", "packed int8"])
def test_inference_rounds_rows_as_without_an_adapter(form, shared):
    """On a CPU: near to the widened products, and not equal to them."""
    stacks = STACKS[form](noise(E, R, K)), STACKS[form](noise(E, K, 32, seed=1))
    first = Factors(a=noise(1 if shared else E, RANK, K), b=noise(E, R, RANK) * 0.1, scale=1.0)
    x, weight = noise(6, K, seed=2), torch.full((6, 2), 0.5)
    index = torch.tensor([[0, 1], [2, 3], [1, 2], [3, 0], [0, 2], [1, 3]])
    first = dataclasses.replace(first, b=noise(E, 64, RANK) * 0.1)
    stacks = STACKS[form](noise(E, 64, K)), stacks[1]
    learnt = adapted_experts(x, index, weight, stacks, E, first, None)
    with torch.no_grad():
        served = adapted_experts(x, index, weight, stacks, E, first, None)
    error = float((served - learnt).norm() / learnt.norm())
    assert 1e-4 < error < 0.02


@pytest.mark.parametrize("form", ["float", "int8"])
def test_a_frozen_head_has_the_gradients_of_one_that_learns(form, monkeypatch):
    weight = noise(70, K)
    hidden, targets, weights = noise(9, K, seed=1), torch.arange(9) * 7, torch.rand(9)
    results = []
    for embedding in (wide(form, weight, torch.float32).requires_grad_(), MATRICES[form](weight)):
        monkeypatch.setattr(widened, "TILE_BYTES", SMALL_TILE)
        x = hidden.clone().requires_grad_()
        loss, rows = weighted_cross_entropy(x, embedding, targets, weights, 30.0)
        (loss * 3).backward()
        results.append((loss, rows, x.grad))
    for expected, got in zip(*results, strict=True):
        assert (expected - got).norm() < 2e-6 * expected.norm()
