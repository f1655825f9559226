"""Attention of canvases over cached keys and their own, and its rounded form, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.kernels.attention import attention, canvas_attention
    from redraft.kernels.triton.attention import AttentionConfig, attention_config, attention_triton, rounded_attention
    from redraft.kernels.triton.dense import rounded_rows

interpreted = loop_bounds
# Tiles that the small shapes below do not divide into.
SMALL = AttentionConfig(rows=16, keys=16, warps=4, stages=1)


def inputs(batch, queries, cached, canvas, heads, groups, size):
    """Queries and keys are normed, so that their products are about as large as their number's root."""
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


def check(found, expected, error=1e-5):
    """Weights sum to 1, values are below 5; sums are float32."""
    torch.testing.assert_close(found, expected, atol=error, rtol=error)


def spoiled(cached, used):
    """A cache whose spare slots hold numbers that would show."""
    cached = cached.clone()
    for b, count in enumerate(used.tolist()):
        cached[b, :, count:] = 9.0
    return cached


@pytest.mark.parametrize("parts", [1, 3, 99])
@pytest.mark.parametrize(("queries", "cached", "canvas"), [(1, 0, 1), (7, 0, 7), (7, 1, 7), (9, 65, 9), (5, 7, 0)])
def test_both_sources_are_read(queries, cached, canvas, parts):
    given = inputs(1, queries, cached, canvas, 2, 2, 16)
    check(attention_triton(*given, config=SMALL, parts=parts), exact(*given))


@pytest.mark.parametrize("parts", [None, 1, 3])
@pytest.mark.parametrize(
    ("batch", "queries", "cached", "canvas", "heads", "groups", "size"),
    [(2, 7, 33, 7, 2, 2, 16), (3, 5, 0, 5, 1, 3, 32), (3, 9, 40, 9, 2, 1, 64), (2, 5, 17, 0, 1, 8, 16)],
)
def test_sequences_are_attended_at_once(batch, queries, cached, canvas, heads, groups, size, parts):
    given = inputs(batch, queries, cached, canvas, heads, groups, size)
    found = attention_triton(*given, config=SMALL, parts=parts)
    check(found, exact(*given))
    assert found.is_contiguous()
    if parts is not None:
        alone = [attention_triton(*(x[b : b + 1] for x in given), config=SMALL, parts=parts) for b in range(batch)]
        assert torch.equal(found, torch.cat(alone)), "the same parts give the same bits"


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("heads", "groups", "size"), [(3, 1, 128), (2, 2, 256), (1, 8, 512)])
def test_large_heads_over_a_part_of_the_cache(heads, groups, size, held):
    q, ck, cv, k, v = inputs(3, 5, 33, 5, heads, groups, size)
    used = torch.tensor([17, 0, 33], dtype=torch.int32)
    given = (q, spoiled(ck, used), spoiled(cv, used), k, v, used)
    # Held as on most GPUs; else as on AMD's with warps of 32.
    form = SMALL if held else AttentionConfig(rows=16, keys=16, warps=4, stages=1, depth=64, held=False)
    check(attention_triton(*given, config=form, parts=2), exact(*given))


@pytest.mark.parametrize("parts", [1, 3, 99])
@pytest.mark.parametrize("canvas", [7, 1])
def test_each_has_its_own_number_of_slots(canvas, parts):
    q, ck, cv, k, v = inputs(4, canvas, 40, canvas, 2, 2, 16)
    used = torch.tensor([0, 1, 33, 40], dtype=torch.int32)
    given = (q, spoiled(ck, used), spoiled(cv, used), k, v, used)
    found = attention_triton(*given, config=SMALL, parts=parts)
    check(found, exact(*given))
    for b in range(len(q)):
        alone = attention_triton(*(x[b : b + 1] for x in given), config=SMALL, parts=parts)
        assert torch.equal(found[b : b + 1], alone)


def test_only_the_cache_is_read_where_there_is_no_canvas():
    q, ck, cv, k, v = inputs(3, 5, 33, 0, 2, 2, 16)
    used = torch.tensor([1, 33, 18], dtype=torch.int32)
    given = (q, spoiled(ck, used), spoiled(cv, used), k, v, used)
    check(attention_triton(*given, config=SMALL, parts=2), exact(*given))


def test_keys_are_read_where_they_lie():
    """A window into the middle of a longer buffer, and keys as a projection leaves them: positions first."""
    q, ck, cv, k, v = inputs(2, 9, 40, 9, 2, 3, 32)
    k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v))
    given = (q, ck[:, :, 5:38], cv[:, :, 5:38], k, v)
    check(attention_triton(*given, config=SMALL, parts=2), exact(*given))
    used = torch.tensor([17, 33], dtype=torch.int32)
    check(attention_triton(*given, used, config=SMALL, parts=2), exact(*given, used))


def test_far_scores():
    """The top moves from step to step, and one key takes nearly all."""
    q, ck, cv, k, v = inputs(1, 9, 65, 9, 1, 2, 16)
    given = (q * 40, ck * torch.linspace(0.1, 2, 65)[:, None], cv, k, v)
    # Scores of some hundreds carry their last place, 2^-15, into the weights.
    check(attention_triton(*given, config=SMALL, parts=3), exact(*given), error=2e-4)


@pytest.mark.parametrize(("width", "depth"), [(64, 16), (32, 32), (16, 64)])
def test_queries_may_be_read_anew_for_every_tile_of_keys(width, depth):
    given = inputs(2, 7, 33, 7, 2, 2, 64)
    form = AttentionConfig(rows=16, keys=16, warps=4, stages=1, width=width, depth=depth, held=False)
    check(attention_triton(*given, config=form, parts=2), exact(*given))


def test_torchs_form_is_the_same():
    q, ck, cv, k, v = inputs(4, 6, 40, 6, 2, 2, 16)
    used = torch.tensor([0, 1, 33, 40], dtype=torch.int32)
    given = (q, spoiled(ck, used), spoiled(cv, used), k, v, used)
    check(canvas_attention(*given), exact(*given))
    check(canvas_attention(q, ck, cv, k, v), exact(q, ck, cv, k, v))
    check(attention(q, ck, cv), exact(q, ck[:, :, :0], cv[:, :, :0], ck, cv))


def test_tiles_are_chosen_by_what_a_gpu_has():
    assert attention_config(512, 227 * 1024, 32).held
    assert attention_config(256, 64 * 1024, 64).held
    assert not attention_config(256, 64 * 1024, 32).held


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("activations", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups", "size"), [(2, 2, 16), (1, 3, 32), (2, 8, 64)])
def test_rounded_rows_are_those_of_the_result(heads, groups, size, activations, dtype):
    q, ck, cv, k, v = (x.to(activations) for x in inputs(3, 5, 20, 5, heads, groups, size))
    # Rows of zeros have scale 0.
    cv[0], v[0] = 0, 0
    used = torch.tensor([0, 20, 7], dtype=torch.int32)
    whole = attention_triton(q, ck, cv, k, v, used, config=SMALL, parts=2)
    assert whole.dtype == activations
    values, scale = rounded_rows(whole.flatten(2).flatten(0, 1), dtype)
    found = rounded_attention(q, ck, cv, k, v, used, dtype, config=SMALL, parts=2)
    assert found.scale is not None
    assert not found.scale[: whole.shape[1]].any()
    assert torch.equal(found.scale, scale)
    assert torch.equal(found.values.view(torch.uint8), values.view(torch.uint8))
