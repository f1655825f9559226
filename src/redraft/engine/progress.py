"""How a canvas moves on after a step: whether it is done, whether it has stopped getting anywhere, what leaves it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from redraft.engine.canvas import CanvasState
from redraft.engine.sequence import Sequence
from redraft.kernels.head_stats import HeadStats
from redraft.sampler import held_stop
from redraft.sampler.held_stop import HeldStep
from redraft.sampler.stop import remember, stable_and_confident

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
    if state.held is None:
        sure, text, stands = _of_free(entropy[None], state), argmax[None], False
    else:
        sure, text, stands = _held(sequence, state, state.held, argmax)
    history = state.history.to(text.device)
    settled = stands or bool(stable_and_confident(history, text, sure, sequence.options.confidence_threshold))
    state.history, state.argmax = remember(history, text), argmax
    return count(sequence, state, settled=settled, mean_entropy=lambda: float(entropy.mean()))


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


def _held(sequence: Sequence, state: CanvasState, step: HeldStep, argmax: Tensor) -> tuple[Tensor, Tensor, bool]:
    """([1, N] entropies that count, [1, L] the text that must stand still, whether the model is against it for good) of
    a canvas under a constraint."""
    options, ends = sequence.options, sequence.reply.end_ids
    length = held_stop.text_length(argmax, ends, sequence.room())
    text = held_stop.as_text(argmax, length, ends)
    places = held_stop.free_places(step, length)
    if not len(places):
        return step.entropy.new_zeros(1, 1), text[None], False
    sure = step.entropy[places]
    stands = state.standstill.is_for_good(
        step,
        text,
        share=float(held_stop.against(step, argmax, places, ends).float().mean()),
        mean_entropy=float(sure.mean()),
        stability_threshold=options.stability_threshold,
        confidence_threshold=options.confidence_threshold,
    )
    return sure[None], text[None], stands


def _of_free(entropy: Tensor, state: CanvasState) -> Tensor:
    """[1, N] entropies of the positions that are not pinned: those that are would make any canvas look confident."""
    if state.pinned is None or bool((state.pinned >= 0).all()):
        return entropy
    return entropy[:, state.pinned < 0]


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
