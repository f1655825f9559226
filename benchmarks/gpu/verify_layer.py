"""Cases of `verify`: the router, the passes over a row between products, the end of a step, rotary tables."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from compare import BFLOAT16, Case, compared, equal, poison, worst
from context import Context
from torch import Generator, Tensor

from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.triton import rows
from redraft.kernels.triton.advance import advance_triton, draws_triton
from redraft.kernels.triton.rotary import rotary_triton
from redraft.kernels.triton.router import route
from redraft.sampler.accept import accept
from redraft.sampler.advance import Canvases, Found
from redraft.sampler.samplers import NEVER, Rule

_FLOAT32 = 1e-5
_EPS = 1e-6
_STEPS = 4


class _Sizes:
    def __init__(self, context: Context, generator: Generator) -> None:
        self.config, self.clock, self.generator = context.config, context.clock, generator
        self.on_device = context.clock.on_device
        # The interpreter takes its time.
        self.N = context.config.canvas_length if self.on_device else 6
        self.D = context.config.hidden_size
        self.dtype = torch.bfloat16 if self.on_device else torch.float32
        self.bound = BFLOAT16 if self.on_device else _FLOAT32

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, device=self.clock.device, generator=self.generator).to(dtype or self.dtype)


def cases(context: Context, generator: Generator) -> dict[str, Case]:
    """By name."""
    sizes = _Sizes(context, generator)
    return {
        "router": lambda: _router(sizes),
        "rows before the first layer": lambda: _begin(sizes),
        "rows after attention": lambda: _middle(sizes),
        "rows after the experts": lambda: _end(sizes),
        "rows within an MLP": lambda: _gate(sizes),
        "accept, renoise, stop": lambda: _advance(sizes),
        "rotary": lambda: _rotary(sizes),
    }


def _normed(x: Tensor, weight: Tensor | None) -> Tensor:
    wide = x.double()
    out = wide / (wide.square().mean(-1, keepdim=True) + _EPS).sqrt()
    return out if weight is None else out * weight.double()


def _router(sizes: _Sizes) -> dict[str, Any]:
    E, A = sizes.config.num_experts, sizes.config.top_k_experts
    x, weight, scale = sizes.random(sizes.N, sizes.D) * sizes.D**-0.5, sizes.random(E, sizes.D), sizes.random(E).abs()
    poison(sizes.clock)
    index, found = route(x, weight, scale, A)
    shares = (x.double() @ weight.double().T).softmax(-1)
    chosen = shares.gather(1, index.long())
    # Scores that are rounded to a neighbour may swap experts: those chosen must be about as likely.
    expected = chosen / chosen.sum(-1, keepdim=True) * scale.double()[index.long()]
    likeliest = compared(chosen.sort(-1).values, shares.topk(A).values.sort(-1).values, 4 * sizes.bound, "shares")
    return worst([likeliest, compared(found, expected, 4 * sizes.bound, "weights")])


def _wide(found: rows.Rows) -> Tensor:
    """Rows as numbers, whatever they are rounded to."""
    values = found.values.double()
    return values if found.scale is None else values * found.scale.double()[:, None]


def _kinds(sizes: _Sizes) -> list[tuple[torch.dtype | None, float]]:
    """What rows are rounded to, with what that costs. The interpreter cannot round to e4m3."""
    kinds = [(None, 3 * sizes.bound), (torch.int8, 3e-2), (torch.float8_e4m3fn, 5e-2)]
    return kinds if sizes.on_device else kinds[:2]


def _begin(sizes: _Sizes) -> dict[str, Any]:
    N, D, V = sizes.N, sizes.D, 500
    tokens = torch.randint(V, (N,), device=sizes.clock.device, generator=sizes.generator)
    table, parts, weight = sizes.random(V, D), sizes.random(3, N, D, dtype=torch.float32), sizes.random(D)
    scale = torch.tensor(D**0.5, dtype=sizes.dtype, device=table.device)
    integers = Int8Matrix.of(table)
    results = []
    for embedding, floats in ((table, table), (integers, integers.dequantised())):
        expected = _normed(floats[tokens].double() * float(scale) + parts.double().sum(0), None)
        for kind, bound in _kinds(sizes):
            poison(sizes.clock)
            following = rows.NextNorm(weight=weight, dtype=kind)
            hidden, found = rows.begin(tokens, embedding, scale, parts, following, _EPS, normed=True)
            results.append(compared(hidden, expected, 2 * sizes.bound, "hidden states"))
            results.append(compared(_wide(found), _normed(expected, weight), bound, f"rows of {kind}"))
    return worst(results)


def _middle(sizes: _Sizes) -> dict[str, Any]:
    N, D = sizes.N, sizes.D
    attended, hidden, norms = sizes.random(3, N, D, dtype=torch.float32), sizes.random(N, D), sizes.random(4, D)
    names = ("post_attention", "pre_dense", "pre_experts", "router")
    weights = rows.MiddleWeights(**dict(zip(names, norms, strict=True)))
    expected = hidden.double() + _normed(attended.double().sum(0), norms[0])
    results = []
    for (kind, bound), (expert_kind, expert_bound) in zip(_kinds(sizes), reversed(_kinds(sizes)), strict=True):
        poison(sizes.clock)
        new, dense, experts, router = rows.middle(attended, hidden, weights, _EPS, kind, expert_kind)
        results += [
            compared(new, expected, sizes.bound, "hidden states"),
            compared(_wide(dense), _normed(expected, norms[1]), bound, f"rows of the dense MLP, {kind}"),
            compared(_wide(experts), _normed(expected, norms[2]), expert_bound, f"rows of the experts, {expert_kind}"),
            compared(router, _normed(expected, norms[3]) * D**-0.5, 2 * sizes.bound, "rows of the router"),
        ]
    return worst(results)


def _end(sizes: _Sizes) -> dict[str, Any]:
    N, D, A = sizes.N, sizes.D, sizes.config.top_k_experts
    outputs, dense = sizes.random(N, A, D), sizes.random(3, N, D, dtype=torch.float32)
    hidden, norms, scalar = sizes.random(N, D), sizes.random(4, D), sizes.random(1)
    weights = rows.EndWeights(post_experts=norms[0], post_dense=norms[1], post=norms[2], scalar=scalar)
    both = _normed(dense.double().sum(0), norms[1]) + _normed(outputs.double().sum(1), norms[0])
    expected = (hidden.double() + _normed(both, norms[2])) * scalar.double()
    results = []
    for kind, bound in _kinds(sizes):
        poison(sizes.clock)
        new, found = rows.end(outputs, dense, hidden, weights, rows.NextNorm(weight=norms[3], dtype=kind), _EPS)
        results.append(compared(new, expected, 2 * sizes.bound, "hidden states"))
        results.append(compared(_wide(found), _normed(expected, norms[3]), bound, f"rows of {kind}"))
    return worst(results)


def _gate(sizes: _Sizes) -> dict[str, Any]:
    width = sizes.config.intermediate_size
    parts = sizes.random(2, sizes.N, 2 * width, dtype=torch.float32)
    gate, up = parts.double().sum(0).chunk(2, dim=-1)
    expected = F.gelu(gate, approximate="tanh") * up
    x, weight = sizes.random(sizes.N, width), sizes.random(width)
    results = []
    for kind, bound in _kinds(sizes):
        poison(sizes.clock)
        found = rows.gate_rounded(parts, sizes.random(1), kind)
        results.append(compared(_wide(found), expected, bound, f"gated rows of {kind}"))
        poison(sizes.clock)
        normed = rows.norm_rounded(x, weight, _EPS, kind)
        results.append(compared(_wide(normed), _normed(x, weight), bound, f"normed rows of {kind}"))
    return worst(results)


def _advance(sizes: _Sizes) -> dict[str, Any]:
    """Against the torch forms, number by number, of entropies whose sums are exact in any order."""
    B, L, device = 2, sizes.config.canvas_length, sizes.clock.device
    canvases = Canvases.empty(B, L, 1, _STEPS, device)
    canvases.noise.random_(0, 1000, generator=sizes.generator)
    canvases.uniforms.uniform_(generator=sizes.generator)
    rule = Rule(bound=3.0, threshold=NEVER, floor=1, sticky=False, greedy=False)
    canvases.rules.copy_(torch.tensor([rule.numbers] * B).T)
    canvases.place.fill_(_STEPS - 1)
    entropy = torch.randint(0, 6, (B, L), device=device, generator=sizes.generator) / 8
    argmax, sample = torch.randint(0, 1000, (2, B, L), device=device, generator=sizes.generator).unbind(0)
    canvases.history[0] = argmax
    canvases.confidence.copy_(torch.tensor([9.0, 0.0]))
    _, uniform = draws_triton(canvases.temperatures, canvases.uniforms, canvases.place)
    drawn = equal(uniform, canvases.uniforms[-1], "draws")
    fields = vars(canvases)
    stats = Found(argmax=argmax, sample=sample, entropy=entropy, best_log_prob=-entropy)
    advance_triton(
        stats.entropy, stats.best_log_prob, stats.argmax, stats.sample, canvases.noise, canvases.rules,
        canvases.confidence, canvases.ends, history=fields["history"], tokens=fields["tokens"], held=fields["held"],
        kept_argmax=fields["argmax"], kept_entropy=fields["entropy"], accepted=fields["accepted"],
        stood=fields["stood"], verdict=fields["verdict"], place=fields["place"],
    )  # fmt: skip
    taken = accept(entropy, 3.0)
    return worst(
        [
            drawn,
            equal(canvases.accepted, taken, "accepted"),
            equal(canvases.tokens, torch.where(taken, sample, canvases.noise[-1]), "next canvas"),
            equal(canvases.verdict[0], torch.tensor([1.0, 0.0], device=device), "settled"),
            equal(canvases.place, torch.zeros_like(canvases.place), "place"),
        ]
    )


def _rotary(sizes: _Sizes) -> dict[str, Any]:
    positions = torch.tensor([[0, 1, 1023, 262_143]], device=sizes.clock.device)
    frequencies = 10_000.0 ** -(torch.arange(64, device=sizes.clock.device) / 64)
    cos, sin = rotary_triton(positions, frequencies, torch.float32)
    angles = (positions[..., None].float() * frequencies).double()[:, :, None]
    return worst([compared(cos, angles.cos(), 1e-5), compared(sin, angles.sin(), 1e-5)])
