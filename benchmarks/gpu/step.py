"""One denoising step of a batch, as something to call again and again: all of it stays on the device.

Everything that decides how a step is launched is in this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from weights import filled_cache

from redraft.engine.canvas import NOISE_STEPS, CanvasNoise
from redraft.engine.graph import EncodeGraph, StepGraph
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma
from redraft.placement.canvas_cache import room_for
from redraft.sampler.accept import accept, renoise
from redraft.sampler.samplers import NEVER, Rule
from redraft.sampler.schedule import temperature
from redraft.sampler.stop import new_history, remember, stable_and_confident

# DiffusionGemma's own settings, but that no canvas ever ends: nothing is below such a mean entropy.
_ENTROPY_BOUND, _CONFIDENCE, _STABILITY = 0.1, 1e-30, 1
_SCHEDULE = (48, 0.8, 0.4)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a batch.

    Attributes:
        run: the whole step as the engine does it; the host reads the stop flag.
        launch: the step without what the host reads of it.
        work: the same launches one by one.
        graph: whose step it is.
        form: "graph" or "eager": how `run` launches.
        note: why it is no graph.
        cache: what the canvases stand behind.
        place: copies what the canvases see of it, which is done once a canvas.
    """

    run: Callable[[], object]
    launch: Callable[[], object]
    work: Callable[[], object]
    graph: StepGraph
    form: str
    note: str | None
    cache: KVCache
    place: Callable[[], object]


def make_step(model: DiffusionGemma, batch: int, length: int, context: int) -> Step:
    """A step of `batch` canvases of `length` positions, each behind `context` cached ones."""
    cache = filled_cache(model, batch, context, length)
    graph = _graph(model, cache, length, context)
    captured = graph._launch.is_captured

    def place() -> None:
        for row, sequence in enumerate(cache.sequences):
            graph.cache.fill(row, sequence)

    return Step(
        run=graph.step,
        launch=graph._launch,
        work=graph._step,
        graph=graph,
        form="graph" if captured else "eager",
        note=graph._launch.reason,
        cache=cache,
        place=place,
    )


def same_bits(step: Step, steps: int = 8) -> dict[str, Any]:
    """Whether some steps of a captured step give the same bits twice, and the same bits as their launches one by one.

    Every kernel adds in a fixed order, so anything else is a fault: of the capture, of a branch, or a race.
    """
    held = {name: tensor.clone() for name, tensor in _state(step).items()}

    def after(work: Callable[[], object]) -> dict[str, Tensor]:
        for name, tensor in _state(step).items():
            tensor.copy_(held[name])
        for _ in range(steps):
            work()
        return {name: tensor.clone() for name, tensor in _state(step).items()}

    first, second, called = after(step.launch), after(step.launch), after(step.work)
    return {
        "steps": steps,
        "twice": _unlike(first, second) == [],
        "as_launches": _unlike(first, called) == [],
        "unlike": sorted({*_unlike(first, second), *_unlike(first, called)}),
    }


def _state(step: Step) -> dict[str, Tensor]:
    return vars(step.graph.canvases) | {"soft": step.graph.soft}


def _unlike(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    # As bytes: what is not a number is none twice.
    return [name for name in one if not torch.equal(one[name].view(torch.uint8), other[name].view(torch.uint8))]


def make_plain_step(model: DiffusionGemma, cache: KVCache, length: int) -> Callable[[], None]:
    """The step without anything that keeps addresses: what a graph is measured against."""
    return _Plain(model, cache, length).work


def make_commit(model: DiffusionGemma, step: Step, length: int) -> Callable[[], None]:
    """What lies between two canvases: encodes one for every sequence, and places the next. What it appends is taken
    back, so that the next call does the same."""
    cache = step.cache
    context = cache.sequences[0].length
    ids = torch.randint(model.config.vocab_size, (len(cache.sequences), length)).to(model.device)
    encode = EncodeGraph(model, length=length, capacity=room_for(context))

    def commit() -> None:
        # One by one, as the engine does it: requests end their canvases at different times.
        for row, sequence in enumerate(cache.sequences):
            encode(ids[row : row + 1], sequence)
        cache.cut(context)
        step.place()

    return commit


def make_token(model: DiffusionGemma, batch: int, context: int) -> Callable[[], list[int]]:
    """A token of the autoregressive mode for every sequence, the likeliest; the next call writes the same place."""
    cache = filled_cache(model, batch, context, 1)
    ids = torch.randint(model.config.vocab_size, (batch, 1)).to(model.device)

    def token() -> list[int]:
        chosen = model.logits(model.encode(ids, cache))[:, -1].argmax(-1)
        cache.cut(context)
        # The host must know each token: it may be the last.
        return chosen.tolist()

    return token


def _noise(model: DiffusionGemma, length: int, row: int) -> CanvasNoise:
    return CanvasNoise(row, 0, length, model.config.vocab_size, model.device)


def _temperatures() -> list[float]:
    return [temperature(step, *_SCHEDULE) for step in range(NOISE_STEPS)]


def _graph(model: DiffusionGemma, cache: KVCache, length: int, context: int) -> StepGraph:
    capacity = room_for(context)
    graph = StepGraph(
        model, batch_size=len(cache.sequences), length=length, capacity=capacity, threshold=_STABILITY
    )  # fmt: skip
    for row, sequence in enumerate(cache.sequences):
        source = _noise(model, length, row)
        graph.place(
            row,
            sequence,
            tokens=source.start(0),
            soft=None,
            history=new_history(_STABILITY, 1, length, model.device),
            kept=None,
            rule=Rule(bound=_ENTROPY_BOUND, threshold=NEVER, floor=1, sticky=False, greedy=False),
            confidence_threshold=_CONFIDENCE,
        )
        graph.feed(row, *source.block(0), _temperatures(), 0)
    return graph


class _Plain:
    """The step by the model's and the sampler's own functions."""

    def __init__(self, model: DiffusionGemma, cache: KVCache, length: int) -> None:
        B, device = len(cache.sequences), model.device
        self._model, self._cache, self._taken = model, cache, 0
        sources = [_noise(model, length, row) for row in range(B)]
        blocks = [source.block(0) for source in sources]
        self._uniform, self._fresh = (torch.stack(parts, dim=1) for parts in zip(*blocks, strict=True))
        self._temperatures = torch.tensor(_temperatures(), device=device)[:, None].repeat(1, B)
        self._tokens: Tensor = torch.stack([source.start(0) for source in sources])
        self._soft = torch.zeros(B, length, model.config.hidden_size, dtype=model.dtype, device=device)
        self._history = new_history(_STABILITY, B, length, device)
        self._settled = torch.zeros(B, dtype=torch.bool, device=device)

    def work(self) -> None:
        """Moves every canvas by a step."""
        at = self._taken % NOISE_STEPS
        self._taken += 1
        hidden = self._model.denoise_hidden(self._tokens, self._cache, self._soft)
        stats = self._model.head(hidden, self._temperatures[at], self._uniform[at])
        self._settled.copy_(stable_and_confident(self._history, stats.argmax, stats.entropy, _CONFIDENCE))
        self._history.copy_(remember(self._history, stats.argmax))
        accepted = accept(stats.entropy, _ENTROPY_BOUND)
        self._tokens.copy_(renoise(accepted, stats.sample, self._fresh[at]))
        self._soft.copy_(stats.soft_embedding)
