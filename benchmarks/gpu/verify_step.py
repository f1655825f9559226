"""Cases of `verify`: the head, attention, norms, and the dense products."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from compare import BFLOAT16, Case, compared, equal, poison, worst
from context import Context
from torch import Generator, Tensor
from weights import float8_matrix, int8_matrix

from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
from redraft.kernels.triton.attention import attention_triton, rounded_attention
from redraft.kernels.triton.dense import ROUNDED, dense_float8, dense_int8, dense_parts, float8_operands
from redraft.kernels.triton.head import head_triton
from redraft.kernels.triton.norm import norm_add_triton, norm_heads_triton, rms_norm_triton
from redraft.kernels.triton.rows import rounded

_FLOAT32 = 1e-5
_EPS = 1e-6
# A draw that falls this near to the border of two tokens may mean either.
_BORDER = 1e-4
# Times a token's unit embedding, as hidden states of a position that is sure of it.
_SURE = 25.0


class _Sizes:
    def __init__(self, context: Context, generator: Generator) -> None:
        self.config, self.clock, self.generator = context.config, context.clock, generator
        self.N = context.config.canvas_length
        self.on_device = context.clock.on_device
        self.dtype = torch.bfloat16 if self.on_device else torch.float32
        self.bound = BFLOAT16 if self.on_device else _FLOAT32
        self.contexts = context.contexts if self.on_device else (33,)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.clock.device, generator=self.generator).to(self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.clock.device, generator=self.generator)


def cases(context: Context, generator: Generator) -> dict[str, Case]:
    """By name."""
    sizes = _Sizes(context, generator)
    found: dict[str, Case] = {
        "head float": lambda: _head(sizes, integer=False),
        "head int8": lambda: _head(sizes, integer=True),
        "head float, half sure": lambda: _head(sizes, integer=False, sure=True),
        "head int8, half sure": lambda: _head(sizes, integer=True, sure=True),
    }
    for layer in {layer.head_dim: layer for layer in context.config.layers}.values():
        for at in sizes.contexts if layer.window is None else (min(layer.window - 1, sizes.contexts[0]),):
            found[f"attention, heads of {layer.head_dim}, {at} cached"] = lambda layer=layer, at=at: _attention(
                sizes, layer.num_key_value_heads, layer.head_dim, at
            )
        found[f"norm of heads of {layer.head_dim}"] = lambda layer=layer: _norm_heads(
            sizes, layer.num_key_value_heads, layer.head_dim
        )
    found |= {
        "norm": lambda: _norm(sizes),
        "norm and residual": lambda: _norm_add(sizes),
        "dense fp8": lambda: _dense_float8(sizes),
        "dense int8": lambda: _dense_int8(sizes),
        "dense, in parts": lambda: _dense_parts(sizes),
    }
    return found


def _head(sizes: _Sizes, *, integer: bool, sure: bool = False) -> dict[str, Any]:
    D, V = sizes.config.hidden_size, sizes.config.vocab_size
    if not sizes.on_device:
        # The interpreter takes its time.
        V = 200
    rows = sizes.N if sizes.on_device else 9
    hidden = sizes.random(rows, D)
    temperature, uniform = sizes.uniform(rows) + 0.3, sizes.uniform(rows)
    scale = torch.tensor(float(D**0.5), device=hidden.device)
    read: Tensor | Int8Matrix

    def near_tokens(weight: Tensor) -> Tensor:
        # Every second position; the others go through the whole vocabulary.
        near = _SURE * F.normalize(weight[: len(hidden)].float(), dim=-1).to(hidden.dtype)
        return torch.where(torch.arange(len(hidden), device=hidden.device)[:, None] % 2 == 0, near, hidden)

    if integer:
        read = int8_matrix((V, D), hidden.device, sizes.generator)
        weight = read.dequantised()
        hidden = near_tokens(weight) if sure else hidden
        values, row_scale = quantise_rows(hidden)
        # Rows are rounded as well; the reference is given what is multiplied.
        operand = values.double() * row_scale[:, None]
    else:
        read = weight = sizes.random(V, D) * D**-0.5
        hidden = near_tokens(weight) if sure else hidden
        operand = hidden.double()
    poison(sizes.clock)
    cap = sizes.config.final_logit_softcapping
    found = head_triton(
        hidden, read, cap=cap, embed_scale=scale, temperature_N=temperature, uniform_N=uniform
    )  # fmt: skip
    logits = operand @ weight.double().T
    if not integer:
        # A product of bfloat16 is rounded: what follows is exact about the rounded logits.
        logits = logits.to(sizes.dtype).double()
    logits = torch.tanh(logits / cap) * cap / temperature.double()[:, None]
    log_probs = logits.log_softmax(-1)
    probs = log_probs.exp()
    cumulative = probs.cumsum(-1)
    sample = torch.searchsorted(cumulative, (uniform.double() * cumulative[:, -1])[:, None], right=True)[:, 0]
    clear = (cumulative - uniform.double()[:, None]).abs().amin(-1) > _BORDER
    # Logits that are summed in another order may be rounded to a neighbour: the likeliest must be as likely.
    top = log_probs.gather(1, found.argmax[:, None])[:, 0]
    result = [
        compared(found.entropy, -(probs * log_probs).sum(-1), max(1e-4, sizes.bound), "entropy"),
        compared(found.soft_embedding, probs @ weight.double() * float(scale), 2 * sizes.bound, "soft embedding"),
        compared(top, log_probs.amax(-1), max(1e-4, sizes.bound), "log probability of the argmax"),
        compared(found.best_log_prob, log_probs.amax(-1), max(1e-4, sizes.bound), "its log probability, as told"),
        compared(
            found.log_prob, log_probs.gather(1, found.sample[:, None])[:, 0], max(1e-4, sizes.bound), "log probability"
        ),
    ]
    if not sizes.on_device:
        result.append(equal(found.sample[clear], sample[clear], "draws"))
    return worst(result) | {"draws_that_differ": int((found.sample != sample).sum())}


def _attention(sizes: _Sizes, heads: int, size: int, cached: int) -> dict[str, Any]:
    T, H = (sizes.N, sizes.config.num_attention_heads) if sizes.on_device else (5, sizes.config.num_attention_heads)
    q = sizes.random(T, H, size) * size**-0.25
    keys, own_keys = (sizes.random(heads, count, size) * size**-0.25 for count in (cached, T))
    values, own_values = (sizes.random(heads, count, size) for count in (cached, T))
    # Slots that are not used hold numbers which would show.
    spare_keys, spare_values = (F.pad(x, (0, 0, 0, 7), value=9.0) for x in (keys, values))
    used = torch.tensor([cached], dtype=torch.int32, device=q.device)
    own = (own_keys[None], own_values[None])
    poison(sizes.clock)
    found = attention_triton(q[None], keys[None], values[None], *own)[0]
    poison(sizes.clock)
    with_spare = attention_triton(q[None], spare_keys[None], spare_values[None], *own, used)[0]
    # A float64 score matrix of all heads at once would take gigabytes.
    parts = []
    for k in range(heads):
        group = q[:, k * H // heads : (k + 1) * H // heads].double()
        scores = torch.einsum("thd,sd->ths", group, torch.cat([keys[k], own_keys[k]]).double())
        parts.append(scores.softmax(-1) @ torch.cat([values[k], own_values[k]]).double())
    expected = torch.cat(parts, dim=1)
    results = [compared(found, expected, sizes.bound), compared(with_spare, expected, sizes.bound, "spare slots")]
    # As an 8-bit product reads it; the interpreter cannot round to e4m3.
    for kind, bound in ((torch.int8, 3e-2), (torch.float8_e4m3fn, 5e-2))[: 2 if sizes.on_device else 1]:
        poison(sizes.clock)
        rows = rounded_attention(q[None], spare_keys[None], spare_values[None], *own, used, kind)
        assert rows.scale is not None
        wide = rows.values.double() * rows.scale.double()[:, None]
        results.append(compared(wide, expected.flatten(1), bound, f"rounded to {kind}"))
    return worst(results)


def _normed(x: Tensor, weight: Tensor | None) -> Tensor:
    wide = x.double()
    out = wide / (wide.square().mean(-1, keepdim=True) + _EPS).sqrt()
    return out if weight is None else out * weight.double()


def _norm(sizes: _Sizes) -> dict[str, Any]:
    D = sizes.config.hidden_size
    x, weight = sizes.random(sizes.N, D), sizes.random(D)
    poison(sizes.clock)
    return worst(
        [compared(rms_norm_triton(x, w, _EPS), _normed(x, w), sizes.bound) for w in (weight, None)]
    )  # fmt: skip


def _norm_add(sizes: _Sizes) -> dict[str, Any]:
    D = sizes.config.hidden_size
    x, residual, weight = sizes.random(sizes.N, D), sizes.random(sizes.N, D), sizes.random(D)
    scalar = sizes.random(1)
    poison(sizes.clock)
    found = norm_add_triton(x, weight, residual, scalar, _EPS)
    return compared(found, (residual.double() + _normed(x, weight)) * scalar.double(), sizes.bound)


def _norm_heads(sizes: _Sizes, heads: int, size: int) -> dict[str, Any]:
    T = sizes.N if sizes.on_device else 5
    q = sizes.random(1, T, sizes.config.num_attention_heads, size)
    k, v = sizes.random(1, T, heads, size), sizes.random(1, T, heads, size)
    weights = (sizes.random(size), sizes.random(size))
    angles = sizes.random(1, T, 1, size // 2).float() * 9
    table = (angles.cos().to(sizes.dtype), angles.sin().to(sizes.dtype))
    poison(sizes.clock)
    found = norm_heads_triton(q, k, v, weights, table, _EPS)
    expected = [_turned(_normed(x, w), table) for x, w in zip((q, k), weights, strict=True)] + [_normed(v, None)]
    return worst([compared(f, e, sizes.bound) for f, e in zip(found, expected, strict=True)])


def _turned(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (part.double() for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _dense_float8(sizes: _Sizes) -> dict[str, Any]:
    D, R = sizes.config.hidden_size, sizes.config.intermediate_size
    matrix = float8_matrix((R, D), sizes.clock.device, sizes.generator)
    x = sizes.random(sizes.N, D)
    poison(sizes.clock)
    found = dense_float8(x, matrix.data, matrix.scale)
    # Rows may be rounded to float8 as well.
    return compared(found, F.linear(x.double(), matrix.dequantised().double()), 5e-2, float8_operands(x.device))


def _dense_int8(sizes: _Sizes) -> dict[str, Any]:
    D, R = sizes.config.hidden_size, sizes.config.intermediate_size
    matrix = int8_matrix((R, D), sizes.clock.device, sizes.generator)
    x = sizes.random(sizes.N, D)
    poison(sizes.clock)
    found = dense_int8(x, matrix.data, matrix.scale)
    return compared(found, F.linear(x.double(), matrix.dequantised().double()), 3e-2)


def _dense_parts(sizes: _Sizes) -> dict[str, Any]:
    """In several parts, whatever the device would take; and in one, which is rounded once."""
    D, R = sizes.config.hidden_size, sizes.config.intermediate_size
    operands = float8_operands(sizes.clock.device)
    eight = float8_matrix((D, R), sizes.clock.device, sizes.generator)
    integers = int8_matrix((D, R), sizes.clock.device, sizes.generator)
    x = sizes.random(sizes.N, R)
    found = []
    for matrix, kind, bound in ((eight, operands, 5e-2), (integers, "int8", 3e-2)):
        given = rounded(x, ROUNDED[kind])
        data = matrix.data
        for parts in (1, 3):
            poison(sizes.clock)
            product = dense_parts(given, data, matrix.scale, kind, sizes.dtype, parts=parts).double().sum(0)
            expected = F.linear(x.double(), matrix.dequantised().double())
            found.append(compared(product, expected, bound, f"{kind}, {parts} parts"))
    return worst(found)
