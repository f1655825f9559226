"""Verified mode: a canvas is a draft, of which the causal mode keeps what it would have written itself.

The draft is no sample from a known distribution, so each of its tokens counts as a proposal of one point: x is kept
with probability p(x) under the causal mode, and else replaced by a draw from p without x. Then P(x) = p(x), and for
any other y, P(y) = (1 - p(x)) p(y) / (1 - p(x)) = p(y). At temperature 0 that means: keep while the argmax agrees.

Source: Leviathan et al., arXiv 2211.17192, section 2.3, for a proposal that is a point mass.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from redraft.core.events import Commit
from redraft.engine.canvas import CanvasState
from redraft.engine.instead import calls, say_instead
from redraft.engine.judge import ROWS, cut_at_end
from redraft.engine.next_token import allowed_logits, causal_probabilities
from redraft.engine.sequence import Sequence
from redraft.engine.settle import follow
from redraft.kernels.head import inverse_cdf
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma
from redraft.sampler import noise
from redraft.sampler.noise import Stream


def verify(model: DiffusionGemma, sequence: Sequence, state: CanvasState) -> Commit | None:
    """Commits the part of a canvas that the causal mode keeps; None where the request has failed.

    The token that it puts in place of the first it refuses is decided: it heads the next canvas, pinned there, and
    the rest of the draft is where that canvas starts.
    """
    assert state.argmax is not None
    assert sequence.last_hidden is not None
    if calls(sequence, state.argmax.tolist()):
        say_instead(sequence)
        # A new draft, under what the reply is held to now; what was decided may have been the call's beginning.
        sequence.pinned, sequence.initial, sequence.canvas = [], [], None
        return None
    costs, started = sequence.costs, time.perf_counter()
    draft = cut_at_end(state.argmax.tolist(), sequence.reply.end_ids, sequence.budget - sequence.committed)
    decided = sum(token >= 0 for token in sequence.pinned[:1])
    hidden = model.encode(torch.tensor([draft], device=model.device), KVCache([sequence.cache]))
    costs.encode_passes += 1
    if not bool(torch.isfinite(hidden).all()):
        sequence.fail(f"the model's output is not finite at token {sequence.committed}")
        return None
    kept, replacement, log_probs = _kept(model, sequence, draft, decided, hidden)
    costs.drafted_tokens += len(draft) - decided
    costs.verified_tokens += kept - decided
    wanted = sequence.cache.length - len(draft) + kept
    assert sequence.cache.cut(wanted) == wanted, "a cache keeps one canvas more than its window"
    if kept:
        sequence.last_hidden = hidden[:, kept - 1 : kept]
    costs.encode_s += time.perf_counter() - started
    costs.canvases += 1
    if costs.first_canvas_s is None:
        costs.first_canvas_s = time.perf_counter() - costs.started
    taken = draft[:kept]
    if replacement is not None and replacement in sequence.reply.end_ids:
        # Nothing follows an end-of-turn, so that no canvas has to carry it.
        taken, replacement = [*taken, replacement], None
    ids, text, shown = sequence.reply.add(taken)
    sequence.logprobs += log_probs[: len(ids)]
    follow(sequence, taken)
    if replacement is not None:
        sequence.pinned = [replacement]
        sequence.initial = [replacement, *draft[kept + 1 :]]
    sequence.canvas = None
    logprobs = tuple(log_probs[: len(ids)]) if sequence.options.logprobs else None
    return Commit(
        canvas=state.number,
        token_ids=tuple(ids),
        text=text,
        shown=shown,
        denoising_steps=state.steps,
        logprobs=logprobs,
    )


def _kept(
    model: DiffusionGemma, sequence: Sequence, draft: list[int], decided: int, hidden: Tensor
) -> tuple[int, int | None, list[float]]:
    """(tokens of the draft that are kept, what replaces the next or None, log-probability of each kept one)."""
    assert sequence.last_hidden is not None
    before = torch.cat([sequence.last_hidden, hidden[:, :-1]], dim=1)
    log_probs: list[float] = []
    state = sequence.constraint_state
    for first in range(0, len(draft), ROWS):
        logits = model.logits(before[:, first : first + ROWS])[0]
        for place, row in enumerate(logits, start=first):
            token, replacement = draft[place], None
            allowed = allowed_logits(sequence, row, state, sequence.room(place))
            if place >= decided:
                replacement = _judge(sequence, token, allowed, sequence.committed + place)
            if replacement is not None and sequence.narrow([*draft[:place], replacement]):
                assert sequence.constraint is not None
                state = sequence.constraint.automaton.advance(sequence.constraint_state, draft[:place])
                allowed = allowed_logits(sequence, row, state, sequence.room(place))
                replacement = _judge(sequence, token, allowed, sequence.committed + place)
            if replacement is not None:
                return place, replacement, log_probs
            log_probs.append(float(torch.log_softmax(allowed, dim=-1)[token]))
            if sequence.constraint is not None:
                state = sequence.constraint.automaton.advance(state, [token])
    return len(draft), None, log_probs


def _judge(sequence: Sequence, token: int, logits: Tensor, place: int) -> int | None:
    """None where the token is kept, else what stands there instead."""
    probabilities = causal_probabilities(sequence, logits)
    if sequence.options.temperature == 0:
        best = int(probabilities.argmax())
        return None if best == token else best
    likely = float(probabilities[token])
    at = [torch.tensor([value], device=probabilities.device) for value in (sequence.seed, 0, place)]
    if float(noise.uniform(at[0], Stream.ACCEPT, at[1], at[2], 1)) < likely:
        return None
    rest = probabilities.clone()
    rest[token] = 0.0
    return int(inverse_cdf(rest[None], noise.uniform(at[0], Stream.RESIDUAL, at[1], at[2], 1)[0]))
