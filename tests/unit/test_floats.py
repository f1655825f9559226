"""Few rows of floats, and a layer's experts in one call, against torch's products, as several machines build them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from other_machines import MACHINES, built_for, in_its_place
from redraft.kernels import experts as mixture
from redraft.kernels.experts import experts
from redraft.kernels.linear import few_experts, linear, runs_few
from redraft.kernels.native import build

WITHIN = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def there():
    if build.library("floats") is None:
        pytest.skip("no compiler")
    with torch.no_grad():
        yield


@pytest.fixture(scope="module", params=MACHINES)
def machine(request, tmp_path_factory):
    return built_for(request.param, "floats", tmp_path_factory.mktemp("floats"))


def floats(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def given(rows, picks, dtype, count=5, width=24, columns=40):
    draw = torch.Generator().manual_seed(rows)
    index = torch.stack([torch.randperm(count, generator=draw)[:picks] for _ in range(rows)])
    weight = torch.rand(rows, picks, generator=draw)
    wide = floats(count, 2 * width, columns, dtype=dtype, seed=1) * columns**-0.5
    narrow = floats(count, columns, width, dtype=dtype, seed=2) * width**-0.5
    return floats(rows, columns, dtype=dtype), index, weight, wide, narrow


def loop(x, index, weight, wide, narrow):
    out = torch.zeros_like(x)
    for n, (chosen, shares) in enumerate(zip(index.tolist(), weight.tolist(), strict=True)):
        for e, share in zip(chosen, shares, strict=True):
            gate, up = (wide[e] @ x[n]).chunk(2)
            out[n] += share * (narrow[e] @ (F.gelu(gate, approximate="tanh") * up))
    return out


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize(
    ("rows", "columns", "outputs"), [(1, 1, 1), (1, 70, 13), (2, 64, 128), (3, 257, 9), (4, 33, 66)]
)
def test_few_rows(machine, monkeypatch, rows, columns, outputs, dtype):
    in_its_place(machine, "floats", monkeypatch)
    x, weight = floats(rows, columns, dtype=dtype), floats(outputs, columns, dtype=dtype, seed=1) * columns**-0.5
    got = linear(x.view(1, rows, columns), weight)
    assert got.dtype == dtype
    torch.testing.assert_close(got[0].double(), x.double() @ weight.double().T, atol=WITHIN[dtype], rtol=0.02)


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize(("rows", "picks"), [(1, 1), (1, 3), (7, 2), (30, 5)])
def test_a_layers_experts(machine, monkeypatch, rows, picks, dtype):
    in_its_place(machine, "floats", monkeypatch)
    case = given(rows, picks, dtype)
    expected = loop(*(x.double() if x.is_floating_point() else x for x in case))
    got = few_experts(*case)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, atol=3 * WITHIN[dtype], rtol=0.02)


def test_company_and_threads_change_no_bit():
    x, index, weight, *stacks = given(19, 2, torch.float32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 64):
            torch.set_num_threads(count)
            found.append(few_experts(x, index, weight, *stacks))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], each) for each in found[1:])
    alone = [few_experts(x[n : n + 1], index[n : n + 1], weight[n : n + 1], *stacks)[0] for n in range(19)]
    assert torch.equal(torch.stack(alone), found[0])


@pytest.mark.parametrize("dtype", WITHIN)
def test_what_must_be_alike_is_so_in_any_company(dtype):
    x, weight = floats(70, 33, dtype=dtype), floats(10, 33, dtype=dtype, seed=1)
    together = linear(x, weight, alike=True)
    torch.testing.assert_close(together, F.linear(x, weight), atol=10 * WITHIN[dtype], rtol=0.02)
    assert all(torch.equal(linear(x[n : n + 1], weight, alike=True)[0], together[n]) for n in range(70))


def test_a_nan_stays_in_its_row():
    x, index, weight, *stacks = given(9, 2, torch.float32)
    x[4, 3] = float("nan")
    for got in (few_experts(x, index, weight, *stacks), linear(x, floats(6, 40))):
        assert got.isfinite().all(1).tolist() == [n != 4 for n in range(9)]


def test_many_rows_go_one_expert_after_the_other(monkeypatch):
    calls = []
    monkeypatch.setattr(mixture, "few_experts", lambda *case: calls.append(len(case[0])) or few_experts(*case))
    for dtype in WITHIN:
        for rows in (2, 14, 30):
            experts(*given(rows, 5, dtype))
    assert calls == [2, 14, 2], "at most 16 to an expert in float32, 12 in bfloat16"


def test_what_learns_is_left_to_torch(monkeypatch):
    monkeypatch.setattr("redraft.kernels.linear.call", None)
    case = given(2, 2, torch.float32)
    with torch.enable_grad():
        assert not runs_few(case[0], 2, *case[3:])
        linear(case[0].requires_grad_(), floats(6, 40)).sum().backward()
    linear(case[0].detach().double(), floats(6, 40).double())


def test_shapes_that_do_not_meet_are_refused():
    x, index, weight, wide, _ = given(2, 2, torch.float32)
    with pytest.raises(ValueError, match="do not meet"):
        linear(x, floats(6, 41))
    with pytest.raises(ValueError, match="do not meet"):
        few_experts(x, index, weight, wide, wide)
