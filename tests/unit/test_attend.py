"""Attention in C++ against torch's, in every form that a CPU may have it."""

from __future__ import annotations

import pytest
import torch

from other_machines import MACHINES, built_for, in_its_place
from redraft.kernels.attention import _reference, attention, causal_attention, causal_mask
from redraft.kernels.native import build

# (queries, heads, key-value heads, head size, keys)
SHAPES = [
    (1, 4, 2, 32, 1), (1, 8, 2, 64, 300), (5, 4, 2, 24, 9), (48, 6, 3, 32, 70), (33, 4, 1, 80, 200), (40, 2, 2, 7, 65)
]  # fmt: skip
WITHIN = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def there():
    if build.library("attend") is None:
        pytest.skip("no compiler")


@pytest.fixture(scope="module", params=MACHINES)
def machine(request, tmp_path_factory):
    return built_for(request.param, "attend", tmp_path_factory.mktemp("attend"))


@pytest.fixture
def called(monkeypatch):
    """How often the kernel ran."""
    counts = []
    from redraft.kernels.native.call import call

    monkeypatch.setattr("redraft.kernels.attention.call", lambda *given: (counts.append(given[1]), call(*given)))
    return counts


def inputs(queries, heads, shared, size, keys, dtype=torch.float32, seed=0):
    """q, k and v, the last two a part of a buffer, as a cache has them."""
    draw = torch.Generator().manual_seed(seed)
    q = 0.5 * torch.randn(1, queries, heads, size, generator=draw)
    k, v = (torch.randn(1, shared, keys + 3, size, generator=draw).to(dtype)[:, :, 2 : keys + 2] for _ in range(2))
    return q.to(dtype), k, v


def check(got, expected):
    assert got.dtype in WITHIN
    torch.testing.assert_close(got.double(), expected, atol=WITHIN[got.dtype], rtol=0)


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_everybody_sees_everything(machine, monkeypatch, called, shape, dtype):
    in_its_place(machine, "attend", monkeypatch)
    q, k, v = inputs(*shape, dtype)
    got = attention(q, k, v)
    assert called == ["attention"]
    check(got, _reference(q.double(), k.double(), v.double(), None))


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("window", [None, 1, 17, 10_000])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_query_sees_what_is_before_it(machine, monkeypatch, called, shape, window, dtype):
    in_its_place(machine, "attend", monkeypatch)
    q, k, v = inputs(*shape, dtype)
    got = causal_attention(q, k, v, window)
    assert called == ["attention"]
    mask = causal_mask(shape[0], shape[4], window)[None]
    check(got, _reference(q.double(), k.double(), v.double(), mask))


def test_what_it_does_not_see_may_hold_anything():
    q, k, v = inputs(40, 4, 2, 32, 100)
    clean = causal_attention(q, k, v, 20)
    k[:, :, :41], v[:, :, :41] = float("nan"), float("inf")
    assert torch.equal(causal_attention(q, k, v, 20), clean)


@pytest.mark.parametrize("queries", [1, 30])
def test_a_nan_stays_in_its_row(queries):
    q, k, v = inputs(queries, 4, 2, 32, 100)
    q[0, queries // 2, 1, 5] = float("nan")
    finite = attention(q, k, v).isfinite().all(-1)
    assert (~finite).nonzero().tolist() == [[0, queries // 2, 1]]


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("window", [None, 17])
@pytest.mark.parametrize("shape", [*SHAPES[2:], (9, 8, 2, 64, 100), (40, 16, 8, 32, 300)], ids=str)
def test_a_token_alone_gets_the_bits_that_it_gets_among_many(machine, monkeypatch, shape, window, dtype):
    in_its_place(machine, "attend", monkeypatch)
    q, k, v = inputs(*shape, dtype)
    many = causal_attention(q, k, v, window)
    for t in {0, 1, shape[0] // 2, shape[0] - 1}:
        end = shape[4] - shape[0] + t + 1
        alone = causal_attention(q[:, t : t + 1].contiguous(), k[:, :, :end], v[:, :, :end], window)
        assert torch.equal(alone[:, 0], many[:, t])


def test_threads_and_company_change_no_bit():
    q, k, v = (torch.cat([x, inputs(40, 4, 2, 64, 130, seed=1)[n]]) for n, x in enumerate(inputs(40, 4, 2, 64, 130)))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 64):
            torch.set_num_threads(count)
            found.append(attention(q, k, v))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], each) for each in found[1:])
    assert torch.equal(found[0][1:], attention(q[1:], k[1:], v[1:]))


def test_gradients_and_other_kinds_are_left_to_torch(called):
    q, k, v = inputs(9, 4, 2, 32, 20)
    attention(q, k.clone().requires_grad_(), v).sum().backward()
    attention(q.double(), k.double(), v.double())
    attention(q, k.transpose(2, 3).contiguous().transpose(2, 3), v)
    attention(q, k, v, torch.ones(1, 9, 20, dtype=torch.bool))
    assert not called


def test_shapes_that_do_not_meet_are_refused():
    q, k, v = inputs(9, 4, 2, 32, 20)
    with pytest.raises(ValueError, match="do not meet"):
        attention(q[..., :16].contiguous(), k, v)
    with pytest.raises(ValueError, match="do not meet"):
        causal_attention(q, k[:, :, :4], v[:, :, :4], None)
