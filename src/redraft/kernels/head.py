"""The head: hidden states in, six small results a position out; the vocabulary stays inside.

`head` picks the form: tiles of the vocabulary on a CPU (`head_tiles`), Triton on a GPU (`triton/head.py`), elsewhere
the torch reference of this file, which works through tiles of rows so that no more than `MAX_TILE_BYTES` of logits
exist at a time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.kernels.accelerator import has_float64
from redraft.kernels.head_stats import HeadStats
from redraft.kernels.head_tiles import head_tiles, runs_by_tiles
from redraft.kernels.integers import integer_mm
from redraft.kernels.linear import linear
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
from redraft.kernels.triton.fallback import attempt, on_gpu
from redraft.kernels.walk import class_scores

MAX_TILE_BYTES = 64 * 2**20
# Tokens whose sum is made on a device without float64.
_BLOCK = 128

# N rows (positions of all canvases), V vocabulary, D hidden


def raw_logits(hidden: Float[Tensor, "... D"], embedding: Float[Tensor, "V D"] | Int8Matrix) -> Float[Tensor, "... V"]:
    """hidden @ embedding.T, before the cap."""
    if not isinstance(embedding, Int8Matrix):
        return linear(hidden, embedding)
    values, scale = quantise_rows(hidden.reshape(-1, hidden.shape[-1]))
    product = integer_mm(values, embedding.data.T) * (scale[:, None] * embedding.scale)
    return product.view(*hidden.shape[:-1], product.shape[-1])


def softcap(x: Float[Tensor, ...], cap: float) -> Float[Tensor, ...]:
    """cap * tanh(x / cap), in float32."""
    return torch.tanh(x.float() / cap) * cap


def entropy_of(log_probs: Float[Tensor, "... V"]) -> Float[Tensor, ...]:
    """Nats. A probability of 0 adds 0, whatever its logarithm."""
    least = torch.finfo(log_probs.dtype).min
    return -(log_probs.exp() * log_probs.clamp(min=least)).sum(-1)


def inverse_cdf(probabilities: Float[Tensor, "N V"], uniform: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The first token, in vocabulary order, at which the cumulative probability exceeds the draw in [0, 1).

    Sums run in float64, so that the same draw means the same token however they are blocked. Where the device has none,
    the host sums what blocks hold.
    """
    if not has_float64(probabilities.device):
        return _by_blocks(probabilities, uniform)
    cumulative = probabilities.double().cumsum(-1)
    threshold = uniform.double() * cumulative[:, -1]
    token = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
    return token.clamp(max=probabilities.shape[-1] - 1)


def _by_blocks(probabilities: Float[Tensor, "N V"], uniform: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """`inverse_cdf` of blocks on the host, then of each row's block."""
    (N, V), device = probabilities.shape, probabilities.device
    count = -(-V // _BLOCK)
    blocks = F.pad(probabilities, (0, count * _BLOCK - V)).view(N, count, _BLOCK)
    mass, draw = blocks.sum(-1, dtype=torch.float32).cpu().double(), uniform.cpu().double()
    before = mass.cumsum(-1)
    threshold = draw * before[:, -1]
    block = torch.searchsorted(before, threshold[:, None], right=True)[:, 0].clamp(max=count - 1)
    rest = threshold - (before - mass).gather(1, block[:, None])[:, 0]
    inner = blocks[torch.arange(N, device=device), block.to(device)].cpu().double().cumsum(-1)
    # A block's own sum may round to less than what is left of the draw: its last token with a share then.
    place = torch.searchsorted(
        inner, torch.minimum(rest, inner[:, -1].nextafter(inner.new_zeros(N)))[:, None], right=True
    )
    return (block * _BLOCK + place[:, 0]).clamp(max=V - 1).to(device)


def head(
    hidden_ND: Float[Tensor, "N D"],
    embedding: Float[Tensor, "V D"] | Int8Matrix,
    *,
    cap: float,
    embed_scale: Float[Tensor, ""],
    temperature_N: Float[Tensor, "N"],
    uniform_N: Float[Tensor, "N"],
    parts: Parts | None = None,
) -> HeadStats:
    """Statistics of softmax(softcap(hidden @ embedding.T) / temperature).

    Temperature 0 means the limit: all mass on the argmax, entropy and log-probabilities 0.

    With `parts`, the rows are one canvas, of one temperature, under an automaton whose classes' scores are wanted too.
    """
    if parts is not None and not watches(hidden_ND, embedding):
        stats = head(
            hidden_ND, embedding, cap=cap, embed_scale=embed_scale, temperature_N=temperature_N, uniform_N=uniform_N
        )
        degree = float(temperature_N[0])
        scores = class_scores(hidden_ND, embedding, cap=cap, temperature=degree, parts=parts)
        return replace(stats, classes=(scores,))
    options = {"cap": cap, "embed_scale": embed_scale, "temperature_N": temperature_N, "uniform_N": uniform_N}
    if runs_by_tiles(embedding) and on_gpu(hidden_ND, embedding.data, temperature_N, uniform_N):
        form = "int8" if isinstance(embedding, Int8Matrix) else embedding.dtype
        return attempt(
            "head", lambda: _triton(hidden_ND, embedding, options), lambda: _plain(hidden_ND, embedding, options), form
        )
    if not watches(hidden_ND, embedding):
        return _plain(hidden_ND, embedding, options)
    greedy = temperature_N == 0
    positive = torch.where(greedy, 1.0, temperature_N)
    found = head_tiles(hidden_ND, embedding, cap=cap, temperature_N=positive, uniform_N=uniform_N, parts=parts)
    sample, entropy, log_prob, best_log_prob = found.sample, found.entropy, found.log_prob, found.best_log_prob
    soft, dropped = found.soft.to(hidden_ND.dtype), found.dropped
    if greedy.any():
        best = found.argmax
        rows = embedding.rows(best, soft.dtype) if isinstance(embedding, Int8Matrix) else embedding[best]
        sample = torch.where(greedy, best, sample)
        # No constant: what is not a number stays none.
        entropy = torch.where(greedy, 0.0 * entropy, entropy)
        log_prob, best_log_prob, dropped = (torch.where(greedy, 0.0, x) for x in (log_prob, best_log_prob, dropped))
        soft = torch.where(greedy[:, None], rows, soft)
    return HeadStats(
        argmax=found.argmax,
        sample=sample,
        entropy=entropy,
        log_prob=log_prob,
        best_log_prob=best_log_prob,
        soft_embedding=soft * embed_scale,
        dropped_mass=dropped,
        classes=() if found.classes is None else (found.classes,),
    )


def watches(hidden: Float[Tensor, "N D"], embedding: Float[Tensor, "V D"] | Int8Matrix) -> bool:
    """Whether the head's own pass over the vocabulary makes an automaton's scores too: those of tiles on a CPU."""
    return hidden.device.type == "cpu" and runs_by_tiles(embedding)


def _triton(hidden: Tensor, embedding: Tensor | Int8Matrix, options: dict[str, Any]) -> HeadStats:
    from redraft.kernels.triton.head import head_triton

    return head_triton(hidden, embedding, **options)


def _plain(hidden: Tensor, embedding: Tensor | Int8Matrix, options: dict[str, Any]) -> HeadStats:
    weight = embedding.dequantised(hidden.dtype) if isinstance(embedding, Int8Matrix) else embedding
    return head_reference(hidden, weight, **options)


def head_reference(
    hidden_ND: Float[Tensor, "N D"],
    embedding_VD: Float[Tensor, "V D"],
    *,
    cap: float,
    embed_scale: Float[Tensor, ""],
    temperature_N: Float[Tensor, "N"],
    uniform_N: Float[Tensor, "N"],
) -> HeadStats:
    """What `head` means, operation by operation."""
    rows = max(1, MAX_TILE_BYTES // (4 * embedding_VD.shape[0]))
    tiles = [
        _tile(h, embedding_VD, cap, embed_scale, t, u)
        for h, t, u in zip(hidden_ND.split(rows), temperature_N.split(rows), uniform_N.split(rows), strict=True)
    ]
    argmax, sample, entropy, log_prob, best_log_prob, soft = (torch.cat(parts) for parts in zip(*tiles, strict=True))
    return HeadStats(
        argmax=argmax,
        sample=sample,
        entropy=entropy,
        log_prob=log_prob,
        best_log_prob=best_log_prob,
        soft_embedding=soft,
        dropped_mass=torch.zeros_like(entropy),
    )


def _tile(
    hidden: Tensor, embedding: Tensor, cap: float, embed_scale: Tensor, temperature: Tensor, uniform: Tensor
) -> tuple[Tensor, ...]:
    logits = softcap(F.linear(hidden, embedding), cap)
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
    argmax = scaled.argmax(-1)
    log_probs = F.log_softmax(scaled, dim=-1)
    probs = log_probs.exp()
    soft = (probs.to(embedding.dtype) @ embedding) * embed_scale
    sample = inverse_cdf(probs, uniform)
    log_prob, best_log_prob = (log_probs.gather(-1, token[:, None])[:, 0] for token in (sample, argmax))
    entropy = entropy_of(log_probs)
    # A device is not asked, which would mean to wait for it.
    if logits.device.type != "cpu" or greedy.any():
        sample = torch.where(greedy, argmax, sample)
        entropy = torch.where(greedy, 0.0 * entropy, entropy)
        log_prob, best_log_prob = (torch.where(greedy, 0.0, x) for x in (log_prob, best_log_prob))
        soft = torch.where(greedy[:, None], embedding[argmax] * embed_scale, soft)
    return argmax, sample, entropy, log_prob, best_log_prob, soft
