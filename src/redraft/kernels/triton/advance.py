"""The end of a denoising step in one launch: accept, renoise, stop, and what the next step begins with."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.kernels.triton.dependent import after_the_last
from redraft.kernels.triton.target import lanes, launch, power_of_two

# B canvases, L positions, H remembered canvases, S steps of a block of noise, E ids that end a turn, R numbers of a
# rule

# Elements of a tile, of all positions by those that they are compared with at once: more would not stay in registers.
_TILE = 8192


@triton.jit
def advance_kernel(
    entropy, best_log_prob, argmax, sample, noise, rules, confidence, ends, settled_nats, settled_steps, history,
    tokens, held, kept_argmax, kept_entropy, accepted, stood, verdict, place, L, H, S, E,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # type: ignore[no-untyped-def]  # fmt: skip
    """One canvas. `history` [H, B, L] forgets its oldest canvas; `place` [B] moves on by one of S."""
    after_the_last()
    b, B = tl.program_id(0), tl.num_programs(0)
    i = tl.arange(0, BLOCK)
    inside = i < L
    own = b * L + i
    now = tl.load(place + b)
    uncertainty = tl.load(entropy + own, mask=inside, other=0.0)
    # Neither infinite nor no number.
    known = tl.abs(uncertainty) < float("inf")
    was_held = tl.load(held + own, mask=inside, other=1) != 0
    # Of all free positions that come before in their order: their entropies, and how many have one. Of equal ones the
    # earlier position comes first.
    before, count = tl.zeros((BLOCK,), dtype=tl.float32), tl.zeros((BLOCK,), dtype=tl.int32)
    for first in range(0, L, COLUMNS):
        j = first + tl.arange(0, COLUMNS)
        other = tl.load(entropy + b * L + j, mask=j < L, other=0.0)
        other = tl.where(tl.load(held + b * L + j, mask=j < L, other=1) != 0, 0.0, other)
        sooner = (other[None, :] < uncertainty[:, None]) | (
            (other[None, :] == uncertainty[:, None]) & (j[None, :] < i[:, None])
        )
        before += tl.sum(tl.where(sooner, other[None, :], 0.0), axis=1)
        count += tl.sum((sooner & (other[None, :] > 0)).to(tl.int32), axis=1)
    likely = tl.load(best_log_prob + own, mask=inside, other=0.0) >= tl.load(rules + B + b)
    taken = (before <= tl.load(rules + b)) | likely | (count < tl.load(rules + 2 * B + b))
    taken = taken & known & (was_held == 0)
    now_held = tl.where(tl.load(rules + 3 * B + b) > 0, was_held | taken, was_held)

    best = tl.load(argmax + own, mask=inside, other=0)
    stands = tl.full((BLOCK,), 1, dtype=tl.int1)
    for h in range(H):
        stands = stands & (tl.load(history + (h * B + b) * L + i, mask=inside, other=0) == best)
    mean = tl.sum(uncertainty, axis=0) / L
    settled = (tl.min(stands.to(tl.int32), axis=0) == 1) & (mean < tl.load(confidence + b))
    # The text: up to and with the first end. Ends are all alike.
    before_it = tl.load(kept_argmax + own, mask=inside, other=0)
    ends_now, ended = tl.zeros((BLOCK,), dtype=tl.int1), tl.zeros((BLOCK,), dtype=tl.int1)
    for e in range(E):
        end = tl.load(ends + b * E + e)
        ends_now, ended = ends_now | (best == end), ended | (before_it == end)
    text = tl.min(tl.where(ends_now & inside, i, L), axis=0)
    counts = inside & (i <= text)
    alike = (best == before_it) | (ends_now & ended) | (i > text)
    same = tl.min(tl.where(inside, alike, True).to(tl.int32), axis=0) == 1
    steps = tl.where(same, tl.load(stood + b) + 1, 0)
    left = tl.sum(tl.where(counts, uncertainty, 0.0), axis=0)
    patience = tl.load(settled_steps + b)
    by_text = ((steps >= H) & (left < tl.load(settled_nats + b))) | ((patience > 0) & (steps >= patience))
    finite = tl.min(known.to(tl.int32), axis=0)
    fresh = tl.load(noise + (now * B + b) * L + i, mask=inside, other=0)
    drawn = tl.load(sample + own, mask=inside, other=0)
    drawn = tl.where(tl.load(rules + 4 * B + b) > 0, best, drawn)
    following = tl.where(was_held, tl.load(tokens + own, mask=inside, other=0), tl.where(taken, drawn, fresh))

    # The oldest gives way, one place after another. A thread may write what another has read, so all have read first.
    for h in range(H):
        newer = best
        if h + 1 < H:
            newer = tl.load(history + ((h + 1) * B + b) * L + i, mask=inside, other=0)
        tl.debug_barrier()
        tl.store(history + (h * B + b) * L + i, newer, mask=inside)
    tl.debug_barrier()
    tl.store(verdict + b, tl.where(settled, 2.0, by_text.to(tl.float32)))
    tl.store(stood + b, steps)
    tl.store(verdict + B + b, finite.to(tl.float32))
    tl.store(verdict + 2 * B + b, mean)
    tl.store(verdict + 3 * B + b, tl.min(now_held.to(tl.int32), axis=0).to(tl.float32))
    tl.store(tokens + own, following, mask=inside)
    tl.store(held + own, now_held, mask=inside)
    tl.store(accepted + own, was_held | taken, mask=inside)
    tl.store(kept_argmax + own, best, mask=inside)
    tl.store(kept_entropy + own, uncertainty, mask=inside)
    tl.debug_barrier()
    tl.store(place + b, (now + 1) % S)


@triton.jit
def draws_kernel(
    temperatures, uniforms, place, temperature, uniform, L, BLOCK: tl.constexpr
):  # type: ignore[no-untyped-def]  # fmt: skip
    """The temperature and the uniform draws of a canvas's step, position by position."""
    after_the_last()
    b, B = tl.program_id(0), tl.num_programs(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, now = i < L, tl.load(place + b)
    degree = tl.load(temperatures + now * B + b)
    tl.store(temperature + b * L + i, tl.zeros((BLOCK,), dtype=tl.float32) + degree, mask=inside)
    tl.store(uniform + b * L + i, tl.load(uniforms + (now * B + b) * L + i, mask=inside, other=0.0), mask=inside)


def advance_triton(
    entropy: Float[Tensor, "B L"],
    best_log_prob: Float[Tensor, "B L"],
    argmax: Int[Tensor, "B L"],
    sample: Int[Tensor, "B L"],
    noise: Int[Tensor, "S B L"],
    rules: Float[Tensor, "R B"],
    confidence: Float[Tensor, "B"],
    ends: Int[Tensor, "B E"],
    settled_nats: Float[Tensor, "B"],
    settled_steps: Int[Tensor, "B"],
    *,
    history: Int[Tensor, "H B L"],
    tokens: Int[Tensor, "B L"],
    held: Bool[Tensor, "B L"],
    kept_argmax: Int[Tensor, "B L"],
    kept_entropy: Float[Tensor, "B L"],
    accepted: Bool[Tensor, "B L"],
    stood: Int[Tensor, "B"],
    verdict: Float[Tensor, "4 B"],
    place: Int[Tensor, "B"],
) -> None:
    """`redraft.sampler.advance.Canvases.advance`, on a GPU; L is at most 1024. All tensors are contiguous."""
    B, L = entropy.shape
    block = max(32, power_of_two(L))
    launch(
        advance_kernel, (B,), entropy, best_log_prob, argmax, sample, noise, rules, confidence, ends, settled_nats,
        settled_steps, history, tokens, held, kept_argmax, kept_entropy, accepted, stood, verdict, place, L,
        len(history), len(noise), ends.shape[1],
        BLOCK=block, COLUMNS=min(32, _TILE // block), num_warps=min(8, max(1, block // lanes(entropy.device))),
    )  # fmt: skip


def draws_triton(
    temperatures: Float[Tensor, "S B"], uniforms: Float[Tensor, "S B L"], place: Int[Tensor, "B"]
) -> tuple[Float[Tensor, "B L"], Float[Tensor, "B L"]]:
    """`redraft.sampler.advance.Canvases.draws`, on a GPU."""
    _, B, L = uniforms.shape
    temperature, uniform = (torch.empty(B, L, dtype=torch.float32, device=uniforms.device) for _ in range(2))
    block = min(1024, power_of_two(L))
    grid = (B, -(-L // block))
    launch(draws_kernel, grid, temperatures, uniforms, place, temperature, uniform, L, BLOCK=block, num_warps=4)
    return temperature, uniform
