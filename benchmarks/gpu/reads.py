"""Reads: narrow canvases side by side, and a whole one of many slots, beside a step; and mini's, beside a CPU's."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import torch
from agreement import prompts_of
from context import Context
from weights import filled_cache, reach, set_routers

import redraft
from redraft.core.reads import NOISE, CanvasRead, CausalRead, DrawReading, Slot
from redraft.kernels.readout import log_prob_tiles, rows_of

FORM = "int4"
# A question by itself has a canvas of so many positions, and one slot; on a whole canvas there are so many slots.
_NARROW, _SLOTS, _LABELS = 16, 64, (11, 12, 13, 14)
_TOGETHER = (1, 8, 32)
_FIRST_S, _NEEDS_S = 40.0, 8.0


def run(context: Context) -> None:
    """Milliseconds of each, then whether the device reads what a CPU reads."""
    length, at = context.config.canvas_length, context.contexts[0]
    narrow = min(_NARROW, length)
    points = [(narrow, batch, 1) for batch in (_TOGETHER[:2] if context.small else _TOGETHER)]
    points.append((length, 1, min(_SLOTS, length // 4)))
    for number, (width, batch, slots) in enumerate(points):
        keys = (f"width_{width}", f"batch_{batch}", f"slots_{slots}")
        work = partial(_time, context, width, batch, slots, at)
        context.store.measure(keys, work, needs_s=_NEEDS_S if number else _FIRST_S)
    context.models.drop()
    context.store.measure(("mini",), lambda: _mini(context), needs_s=20.0)


def _time(context: Context, width: int, batch: int, slots: int, at: int) -> dict[str, Any]:
    model = context.models.get(FORM)
    set_routers(model, reach(context.config, 128))
    cache = filled_cache(model, batch, at, width)
    canvas = torch.randint(model.config.vocab_size, (batch, width)).to(model.device)
    wanted = [_LABELS] * (batch * slots)

    def read() -> object:
        hidden = model.denoise_hidden(canvas, cache)[:, :: width // slots][:, :slots].reshape(batch * slots, -1)
        return [
            rows_of(tile, wanted[first : first + len(tile)]) for first, tile in log_prob_tiles(hidden, model.logits)
        ]

    samples = context.clock.samples_ms(read, seconds=1.0, most=50)
    return {"read_ms": median(samples), "decisions_per_s": 1e3 * batch * slots / median(samples), "samples_ms": samples}


def _mini(context: Context) -> dict[str, Any]:
    """How far the device's log-probabilities are from a CPU's, in float32, reads together and apart."""
    prompts, how = prompts_of(2 if context.small else 6)
    found = {}
    for place in (str(context.clock.device), "cpu"):
        engine = redraft.load("mini", device=place, dtype="float32")
        draws = [reading.draws for reading in engine.read([read for prompt in prompts for read in _reads(prompt)])]
        found[place] = [number for each in draws for draw in each for number in _numbers(draw)]
    here, there = found[str(context.clock.device)], found["cpu"]
    return {"largest_difference_nats": max(abs(a - b) for a, b in zip(here, there, strict=True)), "prompts": how}


def _reads(prompt: list[int]) -> list[CanvasRead | CausalRead]:
    canvas, kept = (NOISE, 5, *[1] * 14), (len(prompt) - 2,)
    slot = (Slot(position=0, token_ids=(4, 519, 545)),)
    return [
        CanvasRead(prompt=tuple(prompt), kept=kept, canvas=canvas, seed=3, slots=slot, draws=(0, 1)),
        CausalRead(prompt=tuple(prompt), kept=kept, token_ids=(4, 519), continuations=((7, 8, 9), (10,))),
    ]


def _numbers(draw: DrawReading) -> list[float]:
    return [*(number for slot in draw.slots for number in slot.log_probs), *draw.log_weights]
