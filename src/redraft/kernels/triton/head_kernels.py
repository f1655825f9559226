"""The head's kernels; `head.py` launches them and says how they follow each other."""

from __future__ import annotations

import triton
import triton.language as tl

from redraft.kernels.triton.dependent import after_the_last

# N rows, V vocabulary, D hidden, J tiles of the vocabulary

# Nats below the likeliest token beyond which others are not listed, and listed tokens that are read at once.
FAR_BELOW, TOGETHER = tl.constexpr(10.0), tl.constexpr(16)


@triton.jit
def capped(raw, cap, inverse):  # type: ignore[no-untyped-def]
    """cap * tanh(raw / cap) * inverse; by an exponential, since not every target has a tanh, and one that cannot
    overflow."""
    shrunk = tl.exp(-2.0 * tl.abs(raw) / cap)
    size = cap * ((1.0 - shrunk) / (1.0 + shrunk))
    return tl.where(raw < 0, -size, size) * inverse


@triton.jit
def inverse_of(temperature):  # type: ignore[no-untyped-def]
    """1 / temperature, and 1 at temperature 0, whose results are put in afterwards."""
    return 1.0 / tl.where(temperature == 0, 1.0, temperature)


@triton.jit
def first_above(cumulative, share, threshold, index, last):  # type: ignore[no-untyped-def]
    """The first entry with a share at which the sum exceeds the threshold; where rounding leaves none, the last with
    one; an entry of the range in any case."""
    found = tl.min(tl.where((cumulative > threshold) & (share > 0), index, last + 1), axis=0)
    heaviest = tl.max(tl.where(share > 0, index, 0), axis=0)
    return tl.where(found > last, heaviest, found)


@triton.jit
def logits_kernel(
    hidden, weight, row_scale, column_scale, temperature, logits, tops, masses, moments, bests, N, V, D, J, cap,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, INTEGER: tl.constexpr, COMPUTE: tl.constexpr,
    EVEN: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Raw logits of ROWS x COLUMNS, and what the tile adds to each row's softmax.

    Neighbouring programs share a tile of the vocabulary, which is then read from memory once.
    """
    after_the_last()
    row_tiles = tl.cdiv(N, ROWS)
    tile = tl.program_id(0) // row_tiles
    n = (tl.program_id(0) % row_tiles) * ROWS + tl.arange(0, ROWS)
    v = tile * COLUMNS + tl.arange(0, COLUMNS)
    d = tl.arange(0, DEPTH)
    inside_n, inside_v = n < N, v < V
    x_at = hidden + n.to(tl.int64)[:, None] * D + d[None, :]
    w_at = weight + v.to(tl.int64)[None, :] * D + d[:, None]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32 if INTEGER else tl.float32)
    for start in range(0, D, DEPTH):
        if EVEN:
            x = tl.load(x_at, mask=inside_n[:, None], other=0)
            w = tl.load(w_at, mask=inside_v[None, :], other=0)
        else:
            x = tl.load(x_at, mask=inside_n[:, None] & (start + d < D)[None, :], other=0)
            w = tl.load(w_at, mask=inside_v[None, :] & (start + d < D)[:, None], other=0)
        if INTEGER:
            total = tl.dot(x, w, total, out_dtype=tl.int32)
        else:
            total = tl.dot(x.to(COMPUTE), w.to(COMPUTE), total, input_precision="ieee")
        x_at += DEPTH
        w_at += DEPTH
    raw = total.to(tl.float32)
    if INTEGER:
        by_row = tl.load(row_scale + n, mask=inside_n, other=0.0)
        raw = raw * (by_row[:, None] * tl.load(column_scale + v, mask=inside_v, other=0.0)[None, :])
    rounded = raw.to(logits.dtype.element_ty)
    at = n.to(tl.int64)[:, None] * V + v[None, :]
    tl.store(logits + at, rounded, mask=inside_n[:, None] & inside_v[None, :])

    inverse = inverse_of(tl.load(temperature + n, mask=inside_n, other=1.0))
    scaled = capped(rounded.to(tl.float32), cap, inverse[:, None])
    scaled = tl.where(inside_v[None, :], scaled, -float("inf"))
    top, best = tl.max(scaled, axis=1, return_indices=True)  # type: ignore[misc]
    below = tl.where(inside_v[None, :], scaled - top[:, None], 0.0)
    share = tl.where(inside_v[None, :], tl.exp(below), 0.0)
    out = n * J + tile
    tl.store(tops + out, top, mask=inside_n)
    tl.store(masses + out, tl.sum(share, axis=1), mask=inside_n)
    tl.store(moments + out, tl.sum(share * below, axis=1), mask=inside_n)
    tl.store(bests + out, tile * COLUMNS + best, mask=inside_n)


@triton.jit
def finish_kernel(
    logits, temperature, uniform, tops, masses, moments, bests, argmaxes, samples, entropies, log_probs,
    best_log_probs, row_tops, row_masses, V, J, cap, COLUMNS: tl.constexpr, TILES: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Results of one row. The draw goes through the tiles' masses in vocabulary order, then through one tile."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, TILES)
    inside = j < J
    tops_J = tl.load(tops + n * J + j, mask=inside, other=-float("inf"))
    masses_J = tl.load(masses + n * J + j, mask=inside, other=0.0)
    moments_J = tl.load(moments + n * J + j, mask=inside, other=0.0)
    top, tile = tl.max(tops_J, axis=0, return_indices=True)  # type: ignore[misc]
    below = tl.where(inside, tops_J - top, 0.0)
    shrink = tl.exp(below)
    share = tl.where(inside, masses_J * shrink, 0.0)
    # A tile far below the top has shrunk to nothing, and so has its moment.
    moment = tl.sum(tl.where(shrink > 0, (moments_J + below * masses_J) * shrink, 0.0), axis=0)
    mass = tl.sum(share, axis=0)
    # Where a row is not a number, a maximum's place may be that of a tile beyond the last.
    argmax = tl.load(bests + n * J + tl.minimum(tile, J - 1))

    cumulative = tl.cumsum(share, axis=0)
    threshold = tl.load(uniform + n) * mass
    chosen = first_above(cumulative, share, threshold, j, J - 1)
    before = tl.sum(tl.where(j < chosen, share, 0.0), axis=0)
    v = chosen * COLUMNS + tl.arange(0, COLUMNS)
    degree = tl.load(temperature + n)
    raw = tl.load(logits + n * V + v, mask=v < V, other=0.0).to(tl.float32)
    scaled = capped(raw, cap, inverse_of(degree)) - top
    inner = tl.where(v < V, tl.exp(scaled), 0.0)
    last = tl.minimum(V, (chosen + 1) * COLUMNS) - 1
    sample = first_above(tl.cumsum(inner, axis=0), inner, threshold - before, v, last)
    # Where a row is not finite, the search means nothing, but an id it must be.
    sample = tl.minimum(sample, V - 1)
    log_prob = tl.sum(tl.where(v == sample, scaled, 0.0), axis=0) - tl.log(mass)
    best_log_prob = -tl.log(mass)
    entropy = tl.log(mass) - moment / mass
    # Rounding may leave a sure row a hair below 0. Not a maximum, which would make a 0 of what is not a number.
    entropy = tl.where(entropy < 0, 0.0, entropy)
    log_prob = tl.where(log_prob > 0, 0.0, log_prob)
    best_log_prob = tl.where(best_log_prob > 0, 0.0, best_log_prob)
    tl.store(argmaxes + n, argmax)
    tl.store(samples + n, tl.where(degree == 0, argmax, sample))
    tl.store(entropies + n, tl.where(degree == 0, 0.0 * entropy, entropy))
    tl.store(log_probs + n, tl.where(degree == 0, 0.0, log_prob))
    tl.store(best_log_probs + n, tl.where(degree == 0, 0.0, best_log_prob))
    tl.store(row_tops + n, top)
    tl.store(row_masses + n, mass)


@triton.jit
def is_sparse(counts, kept, temperature, n, inside, LISTS: tl.constexpr, PLACES: tl.constexpr, BOUND: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether the lists of each row n hold all that they found, and that all but BOUND of its mass; or it has no use
    for them."""
    c = tl.arange(0, LISTS)
    at = n[:, None] * LISTS + c[None, :]
    most = tl.max(tl.load(counts + at, mask=inside[:, None], other=0), axis=1)
    mass = tl.sum(tl.load(kept + at, mask=inside[:, None], other=1.0), axis=1)
    greedy = tl.load(temperature + n, mask=inside, other=0.0) == 0
    return greedy | ((most <= PLACES) & (1.0 - mass <= BOUND))


@triton.jit
def select_kernel(
    logits, temperature, column_scale, tops, row_tops, row_masses, tokens, shares, counts, kept, V, J, cap,
    COLUMNS: tl.constexpr, TILES: tl.constexpr, PLACES: tl.constexpr, INTEGER: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """The tokens of one part of the vocabulary that are not far below a row's likeliest, in their order and at most
    PLACES; how many there are, and their mass. Tiles without any are passed over TILES at a time. Beyond PLACES it
    stops: the row is not sparse, and counting on would cost a flat row a pass over the vocabulary."""
    after_the_last()
    n, c, lists = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    j, i = tl.arange(0, TILES), tl.arange(0, TILES * COLUMNS)
    top, mass = tl.load(row_tops + n), tl.load(row_masses + n)
    inverse = inverse_of(tl.load(temperature + n))
    own = n * lists + c
    count, found = 0, 0.0
    length = tl.cdiv(tl.cdiv(J, TILES), lists) * TILES
    for first in range(c * length, tl.minimum(c * length + length, J), TILES):
        highest = tl.load(tops + n * J + first + j, mask=first + j < J, other=-float("inf"))
        # A list that is over full is not read, whatever else it would hold.
        if (count <= PLACES) & (tl.max(highest, axis=0) >= top - FAR_BELOW):
            v = first * COLUMNS + i
            scaled = capped(tl.load(logits + n * V + v, mask=v < V, other=0.0).to(tl.float32), cap, inverse) - top
            chosen = (scaled >= -FAR_BELOW) & (v < V)
            share = tl.where(chosen, tl.exp(scaled) / mass, 0.0)
            found += tl.sum(share, axis=0)
            if INTEGER:
                share *= tl.load(column_scale + v, mask=chosen, other=0.0)
            place = count + tl.cumsum(chosen.to(tl.int32), axis=0) - 1
            fits = chosen & (place < PLACES)
            tl.store(tokens + own * PLACES + place, v, mask=fits)
            tl.store(shares + own * PLACES + place, share, mask=fits)
            count += tl.sum(chosen.to(tl.int32), axis=0)
    tl.store(counts + own, count)
    tl.store(kept + own, found)


@triton.jit
def weights_kernel(
    logits, temperature, column_scale, row_tops, row_masses, counts, kept, weights, V, cap,
    BLOCK: tl.constexpr, INTEGER: tl.constexpr, LISTS: tl.constexpr, PLACES: tl.constexpr, BOUND: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """Probabilities of one row's BLOCK tokens; times the scale of an int8 embedding's row, if it is one."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    only = tl.arange(0, 1)
    if tl.max(is_sparse(counts, kept, temperature, n + only, only < 1, LISTS, PLACES, BOUND).to(tl.int32), axis=0) == 0:
        v = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = v < V
        raw = tl.load(logits + n * V + v, mask=inside, other=0.0).to(tl.float32)
        scaled = capped(raw, cap, inverse_of(tl.load(temperature + n)))
        share = tl.exp(scaled - tl.load(row_tops + n)) / tl.load(row_masses + n)
        if INTEGER:
            share *= tl.load(column_scale + v, mask=inside, other=0.0)
        tl.store(weights + n * V + v, share.to(weights.dtype.element_ty), mask=inside)


@triton.jit
def soft_kernel(
    weights, embedding, temperature, counts, kept, partial, N, V, D,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, COMPUTE: tl.constexpr, LISTS: tl.constexpr,
    PLACES: tl.constexpr, BOUND: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """weights @ embedding over one part of the vocabulary; parts are whole steps of DEPTH tokens.

    Nothing where each of the ROWS has lists to sum. What a row beside others has no weights for is not read.
    """
    after_the_last()
    row_tiles = tl.cdiv(N, ROWS)
    n = (tl.program_id(0) % row_tiles) * ROWS + tl.arange(0, ROWS)
    d = (tl.program_id(0) // row_tiles) * WIDTH + tl.arange(0, WIDTH)
    part = tl.program_id(1)
    inside_n, inside_d = n < N, d < D
    sparse = is_sparse(counts, kept, temperature, n, inside_n, LISTS, PLACES, BOUND)
    length = tl.cdiv(tl.cdiv(V, DEPTH), tl.num_programs(1)) * DEPTH
    first = part * length
    last = tl.where(tl.min(sparse.to(tl.int32), axis=0) == 1, first, tl.minimum(first + length, V))
    depth = tl.arange(0, DEPTH)
    p_rows = weights + n.to(tl.int64)[:, None] * V
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for start in range(first, last, DEPTH):
        v = start + depth
        p = tl.load(p_rows + v[None, :], mask=inside_n[:, None] & (v < V)[None, :], other=0)
        e_at = embedding + v.to(tl.int64)[:, None] * D + d[None, :]
        e = tl.load(e_at, mask=(v < V)[:, None] & inside_d[None, :], other=0)
        total = tl.dot(p.to(COMPUTE), e.to(COMPUTE), total, input_precision="ieee")
    at = (part * N + n).to(tl.int64)[:, None] * D + d[None, :]
    tl.store(at + partial, total, mask=(inside_n & (sparse == 0))[:, None] & inside_d[None, :])


@triton.jit
def sum_kernel(
    partial, embedding, column_scale, temperature, argmaxes, tokens, shares, counts, kept, embed_scale, soft, dropped,
    N, D, parts,
    BLOCK: tl.constexpr, INTEGER: tl.constexpr, LISTS: tl.constexpr, PLACES: tl.constexpr, BOUND: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """A row's listed tokens, or the parts of its product, summed in their order; rounded and scaled. At temperature 0
    it is the argmax's own row."""
    after_the_last()
    n = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, only = d < D, tl.arange(0, 1)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    greedy = tl.load(temperature + n) == 0
    sparse = tl.max(is_sparse(counts, kept, temperature, n + only, only < 1, LISTS, PLACES, BOUND).to(tl.int32), axis=0)
    lost = 0.0
    if greedy:
        best = tl.load(argmaxes + n)
        total = tl.load(embedding + best * D + d, mask=inside, other=0).to(tl.float32)
        if INTEGER:
            total *= tl.load(column_scale + best)
    elif sparse == 1:
        c = tl.arange(0, LISTS)
        lost = tl.maximum(1.0 - tl.sum(tl.load(kept + n * LISTS + c), axis=0), 0.0)
        k = tl.arange(0, TOGETHER)
        for group in range(0, LISTS * PLACES // TOGETHER):
            slot = group * TOGETHER + k
            listed = slot % PLACES < tl.load(counts + n * LISTS + slot // PLACES)
            if tl.max(listed.to(tl.int32), axis=0) == 1:
                v = tl.load(tokens + n * LISTS * PLACES + slot, mask=listed, other=0).to(tl.int64)
                share = tl.load(shares + n * LISTS * PLACES + slot, mask=listed, other=0.0)
                e_at = embedding + v[:, None] * D + d[None, :]
                e = tl.load(e_at, mask=listed[:, None] & inside[None, :], other=0).to(tl.float32)
                total += tl.sum(share[:, None] * e, axis=0)
    else:
        for part in range(parts):
            total += tl.load(partial + (part * N + n) * D + d, mask=inside, other=0.0)
    rounded = total.to(soft.dtype.element_ty).to(tl.float32)
    scaled = rounded * tl.load(embed_scale).to(tl.float32)
    tl.store(soft + n * D + d, scaled.to(soft.dtype.element_ty), mask=inside)
    tl.store(dropped + n, lost)
