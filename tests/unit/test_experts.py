"""The mixture's product in its three forms against a loop over rows in float64, and its gradients against autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from redraft.kernels.experts import every_int8, experts, experts_int8
from redraft.kernels.int8 import PackedInt8
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
from redraft.kernels.native import build

E, D, I = 5, 24, 16

# (rows, experts a row, the experts that may be chosen)
CASES = {
    "one of all": (13, 1, range(E)),
    "two of all": (13, 2, range(E)),
    "all of all": (6, E, range(E)),
    "all rows to one": (13, 1, [3]),
    "none to the first and last": (13, 2, [1, 2, 3]),
    "one row": (1, 2, range(E)),
    "one row to the last": (1, 1, [E - 1]),
    "many rows": (200, 2, range(E)),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=CASES)
def case(request):
    rows, count, allowed = CASES[request.param]
    return inputs(rows, count, torch.tensor(list(allowed)))


def inputs(rows, count, allowed, dtype=torch.float32):
    """x, index, weight, gate_up, down."""
    generator = torch.Generator().manual_seed(rows + count)
    index = allowed[torch.rand(rows, len(allowed), generator=generator).argsort(-1)[:, :count]]
    x = torch.randn(rows, D, generator=generator, dtype=dtype)
    weight = torch.rand(rows, count, generator=generator, dtype=dtype) + 0.1
    gate_up = torch.randn(E, 2 * I, D, generator=generator, dtype=dtype) * D**-0.5
    down = torch.randn(E, D, I, generator=generator, dtype=dtype) * I**-0.5
    return x, index, weight, gate_up, down


def gated(row, matrix):
    gate, up = (matrix @ row).chunk(2)
    return F.gelu(gate, approximate="tanh") * up


def loop(x, index, weight, gate_up, down):
    """The definition, row by row."""
    rows = []
    for n in range(len(x)):
        parts = [weight[n, a] * (down[e] @ gated(x[n], gate_up[e])) for a, e in enumerate(index[n].tolist())]
        rows.append(sum(parts))
    return torch.stack(rows)


def in_float64(given):
    return tuple(x.double() if x.is_floating_point() else x for x in given)


def test_without_gradients_against_the_loop(case):
    got = experts(*case)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), loop(*in_float64(case)), atol=1e-5, rtol=1e-5)


def test_both_forms_are_the_same(case):
    x, *rest = case
    got = experts(x.clone().requires_grad_(), *rest)
    assert got.requires_grad
    torch.testing.assert_close(got.detach(), experts(x, *rest), atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        assert torch.equal(experts(x.clone().requires_grad_(), *rest), experts(x, *rest))


@pytest.mark.parametrize("wanted", [("x", "weight", "gate_up", "down"), ("x",), ("gate_up", "down"), ("weight",)])
def test_gradients_against_the_loop(case, wanted):
    names = ("x", "index", "weight", "gate_up", "down")
    direction = torch.randn(case[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found = []
    for function in (experts, loop):
        given = {
            name: x.clone().requires_grad_(name in wanted) for name, x in zip(names, in_float64(case), strict=True)
        }
        output = function(*given.values())
        (output * direction).sum().backward()
        found.append([output.detach(), *(given[name].grad for name in wanted)])
        assert all(given[name].grad is None for name in names if name not in wanted)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


def test_an_expert_without_rows_gets_a_gradient_of_zeros():
    x, index, weight, gate_up, down = inputs(13, 2, torch.tensor([1, 2, 3]))
    gate_up, down = gate_up.requires_grad_(), down.requires_grad_()
    experts(x, index, weight, gate_up, down).square().sum().backward()
    for gradient in (gate_up.grad, down.grad):
        assert gradient.abs().amax((1, 2)).gt(0).tolist() == [False, True, True, True, False]


def test_an_expert_may_be_named_twice_and_weights_may_be_alike():
    x, index, weight, gate_up, down = inputs(13, 2, torch.arange(E))
    half = torch.full_like(weight, 0.5)
    twice = experts(x, index[:, :1].expand(-1, 2).contiguous(), half, gate_up, down)
    once = experts(x, index[:, :1], torch.ones(13, 1), gate_up, down)
    torch.testing.assert_close(twice, once)
    swapped = experts(x, index.flip(1), half, gate_up, down)
    torch.testing.assert_close(swapped, experts(x, index, half, gate_up, down))


def test_a_weight_of_zero_silences_its_expert():
    x, index, weight, gate_up, down = inputs(13, 2, torch.arange(E))
    weight[:, 1] = 0
    torch.testing.assert_close(
        experts(x, index, weight, gate_up, down), experts(x, index[:, :1], weight[:, :1], gate_up, down)
    )


def test_bfloat16_stays_bfloat16():
    given = inputs(13, 2, torch.arange(E))
    narrow = [x.to(torch.bfloat16) if x.is_floating_point() else x for x in given]
    got = experts(*narrow)
    assert got.dtype == torch.bfloat16
    # Five roundings of 2^-9 each, of results around 1.
    torch.testing.assert_close(got.double(), loop(*in_float64(narrow)), atol=0.03, rtol=0.03)


def packed(weights, plain):
    made = [PackedInt8.of(Int8Matrix.of(weight)) for weight in weights]
    if plain:
        data = [Int8Matrix.of(weight).data for weight in weights]
        made = [
            PackedInt8(data=d, scale=m.scale, columns=m.columns, layout="plain")
            for d, m in zip(data, made, strict=True)
        ]
    return made


def rounded(x):
    """(what the int8 values of rows stand for, in float64, and a step of each row)."""
    values, scale = quantise_rows(x.float())
    return values.double() * scale.double()[:, None], scale.double()


@pytest.fixture(params=["native", "torch"])
def form(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr("redraft.kernels.native.call.library", lambda _: None)
    elif build.library("rows") is None:
        pytest.skip("no compiler")


@pytest.mark.parametrize("plain", [False, True])
def test_int8_against_a_loop_of_what_is_rounded(form, case, plain):
    x, index, weight, gate_up, down = case
    wide, narrow = (torch.stack([Int8Matrix.of(m).dequantised().double() for m in w])[index] for w in (gate_up, down))
    gate, up = (wide @ rounded(x)[0][:, None, :, None])[..., 0].chunk(2, dim=-1)
    hidden, step = rounded((F.gelu(gate, approximate="tanh") * up).flatten(0, 1))
    outputs = (narrow @ hidden.view(*index.shape, I, 1))[..., 0]
    expected = (weight[..., None] * outputs).sum(1)
    step = (weight * step.view_as(weight) * narrow.abs().amax((2, 3))).sum(1, keepdim=True)
    difference = (experts_int8(x, index, weight, packed(gate_up, plain), packed(down, plain)) - expected).abs()
    # float32 may carry a hidden value over the middle between two steps, seldom more than one in a row.
    assert (difference <= step + 1e-5).all()
    assert float(difference.median()) < 1e-6
    exact = loop(*in_float64(case))
    assert float((expected - exact).square().mean().sqrt()) < 0.03 * float(exact.square().mean().sqrt())


def test_int8_keeps_the_dtype_of_its_rows(form):
    x, index, weight, gate_up, down = inputs(13, 2, torch.arange(E))
    arguments = packed(gate_up, plain=False), packed(down, plain=False)
    narrow = x.to(torch.bfloat16)
    got = experts_int8(narrow, index, weight.to(torch.bfloat16), *arguments)
    assert got.dtype == torch.bfloat16
    wide = experts_int8(narrow.float(), index, weight.to(torch.bfloat16).float(), *arguments)
    torch.testing.assert_close(got.float(), wide, atol=0.02, rtol=0.02)


def test_a_nan_stays_in_its_row(form):
    x, index, weight, gate_up, down = inputs(13, 2, torch.arange(E))
    x[4, 3] = float("nan")
    expected = [n != 4 for n in range(13)]
    assert experts(x, index, weight, gate_up, down).isfinite().all(-1).tolist() == expected
    got = experts_int8(x, index, weight, packed(gate_up, plain=False), packed(down, plain=False))
    assert got.isfinite().all(-1).tolist() == expected


def test_the_same_bits_on_every_run():
    x, index, weight, gate_up, down = case = inputs(40, 3, torch.arange(E))
    int8 = packed(gate_up, plain=False), packed(down, plain=False)

    def once():
        leaf = x.clone().requires_grad_()
        trained = [w.clone().requires_grad_() for w in (gate_up, down)]
        output = experts(leaf, index, weight, *trained)
        output.square().sum().backward()
        gradients = [leaf.grad, *(w.grad for w in trained)]
        return [experts(*case), experts_int8(x, index, weight, *int8), output.detach(), *gradients]

    first = once()
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))


def test_every_expert_of_int8_matrices(case):
    """What an accelerator does with few of them, where nothing waits for counts of rows."""
    x, index, weight, gate_up, down = case
    stacks = [[Int8Matrix.of(matrix) for matrix in stack] for stack in (gate_up, down)]
    plain = [
        [PackedInt8(data=m.data, scale=m.scale, columns=m.data.shape[1], layout="plain") for m in s] for s in stacks
    ]
    wide, narrow = (torch.stack([m.dequantised() for m in stack]).double() for stack in stacks)
    expected = loop(x.double(), index, weight.double(), wide, narrow)
    torch.testing.assert_close(every_int8(x, index, weight, *plain).double(), expected, atol=1e-5, rtol=1e-5)
