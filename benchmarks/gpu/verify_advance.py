"""Cases of `verify`: the end of a step over several of them, its draws, and the rotary tables of the shape's layers.

The torch forms run on the CPU. Entropies are multiples of 1/8 where sums must be the same in any order.
"""

from __future__ import annotations

from typing import Any

import torch
from compare import Case, compared, equal, poison, worst
from context import Context
from torch import Generator, Tensor

from redraft.kernels.triton.advance import advance_triton, draws_triton
from redraft.kernels.triton.rotary import rotary_triton
from redraft.model.rope import inverse_frequencies
from redraft.sampler.advance import Canvases, Found
from redraft.sampler.samplers import NEVER, Rule

_BLOCK, _STEPS, _VOCABULARY = 4, 6, 1000
# The longest canvas of the Triton form.
_LONGEST = 1024
# A sum that falls this near to the bound, in float32, may mean either.
_BORDER = 1e-3


class _Sizes:
    def __init__(self, context: Context, generator: Generator) -> None:
        self.config, self.clock, self.generator = context.config, context.clock, generator
        self.device = context.clock.device
        self.lengths = (context.config.canvas_length, _LONGEST) if context.clock.on_device else (40,)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device, generator=self.generator)

    def ids(self, *shape: int) -> Tensor:
        return torch.randint(_VOCABULARY, shape, device=self.device, generator=self.generator)

    def eighths(self, *shape: int) -> Tensor:
        return torch.randint(6, shape, device=self.device, generator=self.generator) / 8


def cases(context: Context, generator: Generator) -> dict[str, Case]:
    """By name."""
    sizes = _Sizes(context, generator)
    found: dict[str, Case] = {}
    for length in sizes.lengths:
        for threshold in (0, 1, 3):
            found[f"end of a step, {length} positions, {threshold} remembered"] = lambda L=length, H=threshold: _steps(
                sizes, L, H
            )
        found[f"accept, {length} positions"] = lambda L=length: _accept(sizes, L)
        found[f"not finite, {length} positions"] = lambda L=length: _not_finite(sizes, L)
        found[f"draws, {length} positions"] = lambda L=length: _draws(sizes, L)
    for key in sorted({layer.rope_key for layer in context.config.layers}):
        found[f"rotary of {key[0]:g}, {key[1]:g}, {key[2]}"] = lambda key=key: _rotary(sizes, *key)
    return found


def _canvases(sizes: _Sizes, batch: int, length: int, threshold: int, *, mixed: bool = True) -> Canvases:
    found = Canvases.empty(batch, length, threshold, _BLOCK, sizes.device)
    found.noise.copy_(sizes.ids(_BLOCK, batch, length))
    found.uniforms.copy_(sizes.uniform(_BLOCK, batch, length))
    found.temperatures.copy_(sizes.uniform(_BLOCK, batch))
    found.place.copy_(sizes.ids(batch) % _BLOCK)
    bounds = (sizes.uniform(batch) * length / 8).tolist()
    # The last row has the other rule; that of `_accept` is of the bound alone.
    rules = [Rule(bound=bound, threshold=NEVER, floor=1, sticky=False, greedy=False) for bound in bounds]
    if mixed:
        rules[-1] = Rule(bound=-1.0, threshold=0.8, floor=3, sticky=True, greedy=True)
    found.rules.copy_(torch.tensor([rule.numbers for rule in rules]).T)
    # The mean of the entropies is about 0.3.
    found.confidence.copy_(torch.linspace(0.0, 1.0, batch))
    # What a launch does not write shows.
    found.entropy.fill_(float("nan"))
    for each in (found.tokens, found.argmax):
        each.fill_(-7)
    return found


def _on_cpu(canvases: Canvases) -> Canvases:
    return Canvases(**{name: tensor.to("cpu", copy=True) for name, tensor in vars(canvases).items()})


def _stats(entropy: Tensor, argmax: Tensor, sample: Tensor) -> Found:
    return Found(argmax=argmax, sample=sample, entropy=entropy, best_log_prob=-entropy)


def _launched(canvases: Canvases, entropy: Tensor, argmax: Tensor, sample: Tensor) -> None:
    advance_triton(
        entropy, -entropy, argmax, sample, canvases.noise, canvases.rules, canvases.confidence, canvases.ends,
        history=canvases.history, tokens=canvases.tokens, held=canvases.held, kept_argmax=canvases.argmax,
        kept_entropy=canvases.entropy, accepted=canvases.accepted, stood=canvases.stood, verdict=canvases.verdict,
        place=canvases.place,
    )  # fmt: skip


def _steps(sizes: _Sizes, length: int, threshold: int) -> dict[str, Any]:
    """The argmax stands still from the second step on, so that canvases settle."""
    batch = 3
    found = _canvases(sizes, batch, length, threshold)
    standing = sizes.ids(batch, length)
    # A text ends in its middle; the other canvases may hold no end at all.
    found.ends[0, 2] = standing[0, length // 2]
    meant, results, settled = _on_cpu(found), [], 0
    for step in range(_STEPS):
        given = (
            sizes.eighths(batch, length),
            sizes.ids(batch, length) if step == 0 else standing,
            sizes.ids(batch, length),
        )
        meant.advance(_stats(*(x.cpu() for x in given)))
        _launched(found, *given)
        results += [
            equal(getattr(found, name).cpu(), expected, f"{name} of step {step}")
            for name, expected in vars(meant).items()
            if name != "verdict" and expected.numel()
        ]
        results.append(equal(found.verdict[:2].cpu(), meant.verdict[:2], f"verdict of step {step}"))
        results.append(compared(found.verdict[2].cpu(), meant.verdict[2], 1e-6, f"mean entropy of step {step}"))
        results.append(equal(found.verdict[3:].cpu(), meant.verdict[3:], f"held and text of step {step}"))
        settled += int(meant.verdict[0].sum())
    return worst(results) | {"settled": settled}


def _accept(sizes: _Sizes, length: int) -> dict[str, Any]:
    """Entropies as they come, and the rule in float64; positions at the border are counted, not judged."""
    found = _canvases(sizes, 4, length, 1, mixed=False)
    entropy = sizes.uniform(4, length) ** 3
    _launched(found, entropy, sizes.ids(4, length), sizes.ids(4, length))
    ascending, order = torch.sort(entropy.double(), dim=-1, stable=True)
    slack = found.rules[0][:, None] - (ascending.cumsum(-1) - ascending)
    slack = torch.zeros_like(slack).scatter(-1, order, slack)
    clear = slack.abs() > _BORDER
    return equal(found.accepted[clear], slack[clear] >= 0, "accepted") | {"at_the_border": int((~clear).sum())}


def _not_finite(sizes: _Sizes, length: int) -> dict[str, Any]:
    found = _canvases(sizes, 3, length, 1)
    entropy = sizes.eighths(3, length)
    entropy[1, 0], entropy[2, length // 2 :] = float("inf"), float("nan")
    given = entropy, sizes.ids(3, length), sizes.ids(3, length)
    meant = _on_cpu(found)
    meant.advance(_stats(*(x.cpu() for x in given)))
    _launched(found, *given)
    names = ("tokens", "accepted", "argmax", "history", "place")
    results = [equal(getattr(found, name).cpu(), getattr(meant, name), name) for name in names]
    return worst([*results, equal(found.verdict[1].cpu(), torch.tensor([1.0, 0.0, 0.0]), "finite")])


def _draws(sizes: _Sizes, length: int) -> dict[str, Any]:
    canvases = _canvases(sizes, 3, length, 1)
    meant = _on_cpu(canvases).draws()
    poison(sizes.clock)
    found = draws_triton(canvases.temperatures, canvases.uniforms, canvases.place)
    names = ("temperatures", "uniforms")
    return worst([equal(f.cpu(), m, name) for f, m, name in zip(found, meant, names, strict=True)])


def _rotary(sizes: _Sizes, theta: float, factor: float, size: int) -> dict[str, Any]:
    """Of angles that are rounded to float32, as torch's are."""
    frequencies = inverse_frequencies(theta, factor, size).to(sizes.device)
    positions = torch.tensor([[0, 1, 2, 1023], [99_999, 131_072, 262_143, 262_144]], device=sizes.device)
    angles = (positions[..., None].float() * frequencies).double()[:, :, None]
    results = []
    for dtype, bound in ((torch.float32, 1e-6), (torch.bfloat16, 2.0**-8)):
        poison(sizes.clock)
        cos, sin = rotary_triton(positions, frequencies, dtype)
        results += [
            compared(cos, angles.cos(), bound, f"cos, {dtype}"),
            compared(sin, angles.sin(), bound, f"sin, {dtype}"),
        ]
    return worst(results)
