"""What replaces the head's own results in a canvas that is steered: constraints, pins, a barred end-of-turn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.core.errors import OptionError
from redraft.engine.canvas import NOISE_STEPS, CanvasNoise, CanvasState
from redraft.engine.sequence import Sequence
from redraft.kernels.class_scores import ClassScores
from redraft.kernels.constrained import CanvasDraw, draw
from redraft.kernels.head import entropy_of, inverse_cdf
from redraft.kernels.head_stats import HeadStats
from redraft.model.model import DiffusionGemma
from redraft.sampler import constrained
from redraft.sampler.held_stop import HeldStep


def is_steered(sequence: Sequence, state: CanvasState) -> bool:
    """Whether the head's own results are not the last word."""
    return sequence.constraint is not None or state.pinned is not None or state.barred is not None


def check_start(sequence: Sequence) -> None:
    """Makes sure that some text keeps the constraint, the pins and the budget at once.

    Raises:
        OptionError: none does.
    """
    if sequence.constraint is None:
        return
    automaton = sequence.constraint.automaton
    least = int(automaton.shortest[sequence.constraint_state])
    if least > sequence.room():
        raise OptionError(
            f"max_new_tokens: the shortest reply that matches has {least} tokens, {sequence.budget} are left"
        )
    L = sequence.canvas_length
    pinned = {place: token for place, token in enumerate(sequence.pinned[:L]) if token >= 0}
    if pinned:
        used, end = constrained.ends(automaton, sequence.room(), L)
        if not constrained.feasible(automaton, sequence.constraint_state, pinned, end, used):
            raise OptionError("the pinned positions leave no reply that matches the response format")


def watched(sequence: Sequence) -> Parts | None:
    """What the head is to look at beside its own results."""
    return None if sequence.constraint is None else sequence.constraint.automaton.parts


def steer(
    model: DiffusionGemma,
    hidden: Tensor,
    stats: HeadStats,
    row: int,
    sequence: Sequence,
    state: CanvasState,
    temperature: float,
    source: CanvasNoise,
) -> None:
    """Writes one row's argmax, sample, entropy and log-probability anew, in place.

    The soft embedding stays the model's own, as in training, but at a barred position, where it would go on telling
    the canvas that the reply is over.

    Args:
        model: for logits at barred positions, and for what a narrower constraint asks.
        hidden: [L, D] of the row's positions.
        stats: of the whole group, made with what it was to look at (`watched`).
        row: its number in it.
        sequence: the request.
        state: its canvas.
        temperature: of this step.
        source: noise of this canvas.
    """
    argmax, sample, entropy = stats.argmax[row], stats.sample[row], stats.entropy[row]
    best_log_prob = stats.best_log_prob[row]
    if sequence.constraint is not None:
        state.seen = hidden if sequence.fields is not None else None
        drawn = _constrained(model, hidden, stats.classes[row], sequence, state, temperature, source)
        state.held = HeldStep(own=argmax.clone(), own_entropy=entropy.clone(), entropy=drawn.entropy, local=drawn.local)
        argmax.copy_(drawn.argmax)
        sample.copy_(drawn.sample)
        # The joint distribution can make a canvas look settled whose tokens the model would still move about.
        entropy.copy_(torch.maximum(drawn.local, drawn.entropy))
        best_log_prob.copy_(drawn.best_log_prob)
    elif state.barred is not None:
        places = torch.nonzero(state.barred)[:, 0]
        logits = model.logits(hidden[None, places])[0]
        logits[:, sorted(sequence.reply.end_ids)] = -torch.inf
        log_probs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)
        best = log_probs.argmax(-1)
        uniform = state.uniform[state.taken % NOISE_STEPS, places]
        argmax[places] = best
        sample[places] = inverse_cdf(log_probs.exp(), uniform) if temperature else best
        entropy[places] = entropy_of(log_probs) if temperature else 0.0
        best_log_prob[places] = log_probs.amax(-1) if temperature else 0.0
        stats.soft_embedding[row, places] = model.soft_embedding(log_probs[None])[0].to(stats.soft_embedding.dtype)
    if state.pinned is not None:
        held = state.pinned >= 0
        argmax[held] = sample[held] = state.pinned[held]
        entropy[held] = best_log_prob[held] = 0.0


def _constrained(
    model: DiffusionGemma,
    hidden: Tensor,
    scores: ClassScores | None,
    sequence: Sequence,
    state: CanvasState,
    temperature: float,
    source: CanvasNoise,
) -> CanvasDraw:
    """A draw under the constraint, by scores of the head's own pass where it has made them."""
    uniform, given = draws(state, source), [scores]

    def asked(parts: Parts) -> ClassScores:
        found = given.pop() if given else None
        if found is None:
            degree = torch.tensor([temperature], device=hidden.device)
            found = model.head(hidden[None], degree, uniform[:1], [parts]).classes[0]
            assert found is not None
        return found

    return constrain(asked, sequence, state, temperature, uniform)


def draws(state: CanvasState, source: CanvasNoise) -> Float[Tensor, "2 L"]:
    """The draws of a canvas's step, of the edge and of the token on it."""
    place = state.taken % NOISE_STEPS
    if state.within is None or place == 0:
        state.within = source.within(state.steps - place)
    return torch.stack([state.uniform[place], state.within[place]])


def constrain(
    asked: Callable[[Parts], ClassScores],
    sequence: Sequence,
    state: CanvasState,
    temperature: float,
    uniform: Float[Tensor, "2 L"],
) -> CanvasDraw:
    """A draw under the constraint, which is narrowed until the argmax breaks none of its rules.

    Args:
        asked: the scores of an automaton's classes.
        sequence: the request.
        state: its canvas.
        temperature: of this step.
        uniform: see `draws`; results lie where it does.

    Raises:
        NothingLeftError: no sequence is left that the automaton takes.
        OptionError: a narrower constraint needs more than may be compiled.
    """
    while True:
        assert sequence.constraint is not None
        automaton = sequence.constraint.automaton
        scores = asked(automaton.parts)
        if state.barred is not None:
            scores = scores.barred(sorted(sequence.reply.end_ids), state.barred)
        if state.pinned is not None:
            scores = scores.pinned(state.pinned)
        begun, known = sequence.constraint_state, state.known
        if known:
            begun = automaton.advance(automaton.start, sequence.reply.token_ids[: sequence.committed - known])
        used, end = constrained.ends(automaton, sequence.room(-known), len(scores))
        drawn = draw(scores, temperature, automaton, begun, end, used, uniform)
        if not sequence.narrow(drawn.argmax[known:].tolist()):
            return drawn
        state.let_go()
