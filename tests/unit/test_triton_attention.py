"""Attention of several canvases in one launch, and its rounded form, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.kernels.triton.attention import AttentionConfig, attention_config, attention_triton, rounded_attention
    from redraft.kernels.triton.dense import rounded_rows

interpreted = loop_bounds
SMALL = AttentionConfig(rows=16, keys=16, warps=4, stages=1)


def inputs(batch, queries, cached, canvas, heads, groups, size):
    generator = torch.Generator().manual_seed(batch + queries + cached)
    shapes = [(batch, queries, heads * groups, size), *[(batch, heads, cached, size)] * 2]
    q, *others = (torch.randn(s, generator=generator) for s in [*shapes, *[(batch, heads, canvas, size)] * 2])
    return q * size**-0.5, *others


def exact(q, cached_keys, cached_values, keys, values, used=None):
    """In float64, sequence by sequence and head by head."""
    out = torch.empty(q.shape, dtype=torch.float64)
    (B, _, H, _), K = q.shape, keys.shape[1]
    for b in range(B):
        count = cached_keys.shape[2] if used is None else int(used[b])
        for h in range(H):
            k = h * K // H
            seen = torch.cat([cached_keys[b, k, :count], keys[b, k]]).double()
            read = torch.cat([cached_values[b, k, :count], values[b, k]]).double()
            out[b, :, h] = (q[b, :, h].double() @ seen.T).softmax(-1) @ read
    return out.float()


@pytest.mark.parametrize("parts", [None, 1, 3])
@pytest.mark.parametrize(
    ("batch", "queries", "cached", "canvas", "heads", "groups", "size"),
    [(2, 7, 33, 7, 2, 2, 16), (3, 5, 0, 5, 1, 3, 32), (3, 9, 40, 9, 2, 1, 64), (2, 5, 17, 0, 1, 8, 16)],
)
def test_sequences_are_attended_at_once(batch, queries, cached, canvas, heads, groups, size, parts):
    given = inputs(batch, queries, cached, canvas, heads, groups, size)
    expected = exact(*given)
    found = attention_triton(*given, config=SMALL, parts=parts)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found.is_contiguous()
    if parts is not None:
        alone = [attention_triton(*(x[b : b + 1] for x in given), config=SMALL, parts=parts) for b in range(batch)]
        assert torch.equal(found, torch.cat(alone)), "the same parts give the same bits"


@pytest.mark.parametrize("parts", [1, 3])
def test_each_has_its_own_number_of_slots(parts):
    q, ck, cv, k, v = inputs(4, 6, 40, 6, 2, 2, 16)
    used = torch.tensor([0, 1, 33, 40], dtype=torch.int32)
    for b, count in enumerate(used.tolist()):
        ck[b, :, count:], cv[b, :, count:] = 9.0, 9.0
    # As a projection leaves them: positions first.
    k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
    found = attention_triton(q, ck, cv, k, v, used, config=SMALL, parts=parts)
    torch.testing.assert_close(found, exact(q, ck, cv, k, v, used), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("width", "depth"), [(64, 16), (32, 32), (16, 64)])
def test_queries_may_be_read_anew_for_every_tile_of_keys(width, depth):
    given = inputs(2, 7, 33, 7, 2, 2, 64)
    form = AttentionConfig(rows=16, keys=16, warps=4, stages=1, width=width, depth=depth, held=False)
    found = attention_triton(*given, config=form, parts=2)
    torch.testing.assert_close(found, exact(*given), atol=1e-5, rtol=1e-5)


def test_tiles_are_chosen_by_what_a_gpu_has():
    assert attention_config(512, 227 * 1024, 32).held
    assert attention_config(256, 64 * 1024, 64).held
    assert not attention_config(256, 64 * 1024, 32).held


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize(("heads", "groups", "size"), [(2, 2, 16), (1, 3, 32), (2, 8, 64)])
def test_rounded_rows_are_those_of_the_result(heads, groups, size, dtype):
    given = inputs(3, 5, 20, 5, heads, groups, size)
    used = torch.tensor([0, 20, 7], dtype=torch.int32)
    whole = attention_triton(*given, used, config=SMALL, parts=2)
    values, scale = rounded_rows(whole.flatten(2).flatten(0, 1), dtype)
    found = rounded_attention(*given, used, dtype, config=SMALL, parts=2)
    assert torch.equal(found.scale, scale)
    assert torch.equal(found.values.view(torch.uint8), values.view(torch.uint8))
