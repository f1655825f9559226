"""Norms that are joined with what stands behind them, against one operator after the other."""

from __future__ import annotations

import pytest
import torch

from other_machines import MACHINES, built_for, in_its_place
from redraft.kernels import norm
from redraft.model.rope import rotary

WITHIN = {torch.float32: {"atol": 1e-6, "rtol": 1e-6}, torch.bfloat16: {"atol": 3e-2, "rtol": 2e-2}}
EPS = 1e-6


@pytest.fixture(scope="module", params=MACHINES)
def machine(request, tmp_path_factory):
    return built_for(request.param, "rows", tmp_path_factory.mktemp("rows"))


@pytest.fixture
def here(machine, monkeypatch):
    in_its_place(machine, "rows", monkeypatch)
    with torch.no_grad():
        yield


def floats(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_operators(function, *given):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm, "runs_natively", lambda *_, **__: False)
        return function(*given)


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("scalar", [None, 0.3])
@pytest.mark.parametrize("shape", [(1, 1, 7), (2, 5, 64), (3, 130)])
def test_a_norm_and_what_it_is_added_to(here, shape, scalar, dtype):
    x, residual, weight = floats(*shape, dtype=dtype), floats(*shape, dtype=dtype, seed=1), floats(shape[-1], seed=2)
    by = None if scalar is None else torch.tensor([scalar], dtype=dtype)
    given = (x, weight.to(dtype), residual, by, EPS)
    found = norm.norm_add(*given)
    assert found.dtype == dtype
    torch.testing.assert_close(found, by_operators(norm.norm_add, *given), **WITHIN[dtype])


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize(("batch", "positions", "heads", "shared", "size"), [(1, 1, 4, 2, 16), (2, 9, 3, 1, 34)])
def test_heads_are_normed_and_turned(here, batch, positions, heads, shared, size, dtype):
    q, k, v = (floats(batch, positions, n, size, dtype=dtype, seed=n) for n in (heads, shared, shared))
    places = torch.arange(positions)[None].expand(batch, -1) + 5
    table = rotary(places, 1.0 / 100 ** (torch.arange(size // 2) / size), dtype)
    weights = floats(size, dtype=dtype, seed=7), floats(size, dtype=dtype, seed=8)
    given = (q, k, v, weights, table, EPS)
    for found, expected in zip(norm.norm_heads(*given), by_operators(norm.norm_heads, *given), strict=True):
        torch.testing.assert_close(found, expected, **WITHIN[dtype])


def test_a_nan_stays_in_its_row(here):
    x, residual = floats(5, 40), floats(5, 40, seed=1)
    x[2, 3] = float("nan")
    assert norm.norm_add(x, torch.ones(40), residual, None, EPS).isfinite().all(1).tolist() == [
        n != 2 for n in range(5)
    ]


def test_what_has_a_gradient_goes_operator_by_operator(monkeypatch):
    monkeypatch.setattr(norm, "_heads", None)
    q = floats(1, 3, 2, 16).requires_grad_()
    table = rotary(torch.arange(3)[None], torch.ones(8), torch.float32)
    norm.norm_heads(q, q, q, (torch.ones(16), torch.ones(16)), table, EPS)[0].sum().backward()
    assert q.grad is not None


def test_shapes_that_do_not_meet_are_refused(here):
    with pytest.raises(ValueError, match="the residual"):
        norm.norm_add(floats(2, 8), torch.ones(8), floats(2, 9), None, EPS)
    table, q = rotary(torch.arange(4)[None], torch.ones(8), torch.float32), floats(1, 3, 2, 16)
    with pytest.raises(ValueError, match="the table"):
        norm.norm_heads(q, q, q, (torch.ones(16), torch.ones(16)), table, EPS)
