"""What the verified mode drafts in: a canvas that stays where its reply, or a block of it, begins.

What is committed of it stands in the canvas as it is, so that the model sees what it was trained on: a whole canvas,
some of which is known. The rest starts from noise, not from what an earlier draft had there: a model takes what it sees
for right. What that draft thought comes along as self-conditioning. docs/log.md has what each of these is worth.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from redraft.engine.canvas import CanvasNoise, CanvasState, new_canvas
from redraft.engine.drafting import Drafting
from redraft.engine.next_token import choose
from redraft.engine.sequence import Sequence
from redraft.model.model import DiffusionGemma

# The last drafts whose kept tokens say how many positions the next one is worth.
RECENT = 2
MULTIPLE = 8


def begun(model: DiffusionGemma, sequence: Sequence) -> Drafting | None:
    """Where the drafts of a request stand, the causal mode's next token among it; None where the request has failed."""
    drafting = sequence.drafting
    if drafting is None:
        drafting = sequence.drafting = Drafting(start=sequence.cache.length, committed=sequence.committed)
    if drafting.head is None:
        assert sequence.last_hidden is not None
        logits = model.logits(sequence.last_hidden)[0, 0]
        if not bool(torch.isfinite(logits).all()):
            sequence.fail(f"the model's output is not finite at token {sequence.committed}")
            return None
        chosen = choose(sequence, logits)
        assert chosen is not None
        drafting.head, drafting.log_prob = chosen
    return drafting


def draft_canvas(
    model: DiffusionGemma, sequence: Sequence, noise: Callable[[int], CanvasNoise], *, shorter: bool
) -> CanvasState | None:
    """The canvas of the next draft, in whose place nothing is encoded; None where the request has failed.

    Args:
        model: whose causal mode has the first token.
        sequence: the request; all that is committed is encoded.
        noise: of a canvas of this length.
        shorter: whether fewer positions than a canvas has are less work.
    """
    drafting = begun(model, sequence)
    if drafting is None:
        return None
    known = sequence.committed - drafting.committed
    if known and sequence.canvas_length - known <= sequence.canvas_length // MULTIPLE:
        # Too little of this block is left to draft in.
        sequence.drafting = drafting = Drafting(
            start=sequence.cache.length,
            committed=sequence.committed,
            head=drafting.head,
            log_prob=drafting.log_prob,
            kept=drafting.kept,
        )
        known = 0
    block = [*sequence.reply.token_ids[drafting.committed :], drafting.head]
    source = noise(_length(sequence, drafting, known, shorter=shorter))
    state = new_canvas(source, sequence.options.stability_threshold, initial=[], pinned=block)
    # Nothing that is free stands before what is pinned.
    state.barred, state.known, state.constraint = None, known, sequence.constraint
    if drafting.soft is not None:
        state.soft = _thought(model, state, drafting.soft)
    drafting.aside = sequence.cache.set_aside(drafting.start)
    return state


def _length(sequence: Sequence, drafting: Drafting, known: int, *, shorter: bool) -> int:
    """Positions of the next draft: what is known, and twice of what was lately kept. A model that was trained on whole
    canvases drafts poorly in less than half of one."""
    length = sequence.canvas_length
    if shorter and length > MULTIPLE:
        ahead = 2 * max(drafting.kept[-RECENT:], default=0)
        wanted = max(length // 2, known + 1 + max(MULTIPLE, ahead))
        length = min(length, -(-wanted // MULTIPLE) * MULTIPLE)
    return max(known + 1, min(length, sequence.positions - drafting.start))


def _thought(model: DiffusionGemma, state: CanvasState, soft: Tensor) -> Tensor:
    """[L, D] what a draft is conditioned on: what the one before it thought, and certainty of what is known by now."""
    L = state.length
    found = soft.new_zeros(L, soft.shape[1])
    found[: len(soft)] = soft[:L]
    certain = state.known + 1
    found[:certain] = model.backbone.embed(state.tokens[None, :certain])[0]
    return found
