"""How a canvas moves on after a step: whether it is done, whether it has stopped getting anywhere, what leaves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.engine.canvas import CanvasState
from redraft.engine.judge import cut_at_end
from redraft.engine.sequence import Sequence
from redraft.kernels.head_stats import HeadStats
from redraft.sampler import held_stop
from redraft.sampler.stop import remember, stable_and_confident
from redraft.sampler.text_stop import done_by_text, repeats, same_text, text_places

# A canvas is cut behind an end-of-turn that was there a step ago and is this certain, and keeps a margin.
CERTAIN_NATS = 0.01
MARGIN = 4
MULTIPLE = 8
# Argmax canvases that the judge may choose from once a canvas is given up.
CANDIDATES = 4


def advance(sequence: Sequence, state: CanvasState, stats: HeadStats, canvas: Tensor, row: int) -> bool:
    """Takes a row of the step's results into its canvas; returns whether the canvas is done."""
    before = state.argmax
    state.tokens, state.soft = canvas[row], stats.soft_embedding[row]
    done = take(sequence, state, stats.argmax[row], stats.entropy[row])
    if sequence.options.adaptive_canvas and not state.settled:
        _shorten(sequence, state, before, stats.entropy[row])
    return done


def take(sequence: Sequence, state: CanvasState, argmax: Tensor, entropy: Tensor) -> bool:
    """Takes [L] what would be committed and its [L] nats into a canvas; returns whether it is done.

    Under a constraint, what the step has `held` lies where they do.
    """
    options = sequence.options
    found = _free(sequence, state, argmax, entropy) if state.held is None else _held(sequence, state, argmax)
    history = state.history.to(found.text.device)
    settled = found.against or bool(stable_and_confident(history, found.text, found.sure, options.confidence_threshold))
    state.history, state.argmax = remember(history, found.text), argmax
    state.stood = state.stood + 1 if found.same else 0
    if not settled:
        done = done_by_text(
            torch.tensor([state.stood]),
            torch.tensor([found.left]),
            stability_threshold=options.stability_threshold,
            settled_nats=torch.tensor([options.settled_nats]),
            settled_steps=torch.tensor([options.settled_steps]),
        )
        settled = bool(done) and not collapsed(sequence, state)
    return count(sequence, state, settled=settled, mean_entropy=lambda: float(entropy.mean()))


def collapsed(sequence: Sequence, state: CanvasState) -> bool:
    """Whether a span of the canvas's text repeats itself over and over: it may stand, and is not settled."""
    assert state.argmax is not None
    return repeats(cut_at_end(state.argmax.tolist(), sequence.reply.end_ids, state.length))


def count(sequence: Sequence, state: CanvasState, *, settled: bool, mean_entropy: Callable[[], float]) -> bool:
    """Counts a step whose results are in the canvas; returns whether the canvas is done.

    Args:
        settled: whether it stands still and is sure.
        mean_entropy: nats; asked for only where a plateau is looked for.
    """
    options = sequence.options
    settled = settled or state.full
    state.settled = settled
    state.step += 1
    state.taken += 1
    sequence.costs.denoising_steps += 1
    if options.plateau_steps:
        _watch(state, mean_entropy())
    stuck = options.plateau_steps and state.stale >= options.plateau_steps
    return settled or bool(stuck) or state.step == options.max_denoising_steps


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a step says of the stop.

    Attributes:
        sure: nats of the positions that the reference's rule looks at.
        text: what must stand still for it.
        left: nats in the free positions of the text, summed.
        same: whether the text is that of the step before.
        against: whether the model is against it for good.
    """

    sure: Float[Tensor, "1 N"]
    text: Int[Tensor, "1 L"]
    left: float
    same: bool
    against: bool = False


def _free(sequence: Sequence, state: CanvasState, argmax: Tensor, entropy: Tensor) -> _Found:
    """Of a canvas without a constraint: positions that are pinned would make any look confident."""
    ends = torch.tensor([sorted(sequence.reply.end_ids)], device=argmax.device)
    counts, sure = text_places(argmax[None], ends)[0], entropy
    if state.pinned is not None:
        counts = counts & (state.pinned < 0)
        sure = entropy if bool((state.pinned >= 0).all()) else entropy[state.pinned < 0]
    before = state.argmax
    return _Found(
        sure=sure[None],
        text=argmax[None],
        left=float(torch.where(counts, entropy, 0.0).sum()),
        same=before is not None and bool(same_text(before[None, : len(argmax)], argmax[None], ends)),
    )


def _held(sequence: Sequence, state: CanvasState, argmax: Tensor) -> _Found:
    """Of a canvas under a constraint: nothing but the free positions of its text."""
    step, options, ends = state.held, sequence.options, sequence.reply.end_ids
    assert step is not None
    length = held_stop.text_length(argmax, ends, sequence.room())
    text, before = held_stop.as_text(argmax, length, ends), state.text
    same = before is not None and torch.equal(before, text)
    state.text = text
    places = held_stop.free_places(step, length)
    if not len(places):
        return _Found(sure=step.entropy.new_zeros(1, 1), text=text[None], left=0.0, same=same)
    sure = step.entropy[places]
    against = state.standstill.is_for_good(
        step,
        share=float(held_stop.against(step, argmax, places, ends).float().mean()),
        mean_entropy=float(sure.mean()),
        stood=state.stood + 1 if same else 0,
        stability_threshold=options.stability_threshold,
        confidence_threshold=options.confidence_threshold,
    )
    return _Found(sure=sure[None], text=text[None], left=float(sure.sum()), same=same, against=against)


def _watch(state: CanvasState, mean_entropy: float) -> None:
    """Counts the steps since the mean entropy last fell, and keeps the canvases in which it did."""
    assert state.argmax is not None
    if mean_entropy < state.least_entropy:
        state.least_entropy, state.stale = mean_entropy, 0
        state.candidates = [*state.candidates[1 - CANDIDATES :], state.argmax]
    else:
        state.stale += 1


def _shorten(sequence: Sequence, state: CanvasState, before: Tensor | None, entropy: Tensor) -> None:
    """Drops what lies well behind an end-of-turn that has settled: attention and experts cost by the position."""
    assert state.argmax is not None
    place = next((i for i, token in enumerate(state.argmax.tolist()) if token in sequence.reply.end_ids), None)
    if place is None or before is None or before[place] != state.argmax[place] or entropy[place] > CERTAIN_NATS:
        return
    length = -(-(place + 1 + MARGIN) // MULTIPLE) * MULTIPLE
    if length < state.length:
        state.cut(length)
