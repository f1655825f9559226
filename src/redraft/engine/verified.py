"""Verified mode: a canvas is a draft, of which the causal mode keeps what it would have written itself.

Every token is the causal mode's own: chosen from its distribution, by the draw that belongs to its place, as
`next_token.choose` does for both. The draft only says for which places one forward can tell that: up to the first
token that is not the chosen one, and that one itself. So the text is the causal mode's, at any temperature, and the
same seed writes the same in both, but for the last bits of a forward of one row and one of many. A token x of the draft
is kept with probability p(x), what a proposal of one point is kept with.

Source: Leviathan et al., arXiv 2211.17192, section 2.3, for a proposal that is a point mass.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from redraft.core.errors import OptionError
from redraft.core.events import Commit
from redraft.engine.canvas import CanvasState
from redraft.engine.drafting import Drafting
from redraft.engine.judge import ROWS, cut_at_end
from redraft.engine.next_token import choose
from redraft.engine.prefill import Encode
from redraft.engine.sequence import Sequence
from redraft.engine.settle import follow
from redraft.kernels.constrained import NothingLeftError
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma


def verify(
    model: DiffusionGemma, sequence: Sequence, state: CanvasState, encode: Encode | None = None
) -> Commit | None:
    """Commits the part of a draft that the causal mode keeps; None where the request has failed.

    Args:
        model: whose both modes these are.
        sequence: the request.
        state: its draft, which has taken its steps.
        encode: takes whole canvases in one launch, where there is such a thing.

    Raises:
        NothingLeftError, OptionError: the very next token cannot be chosen.
    """
    drafting, options = sequence.drafting, sequence.options
    assert state.argmax is not None
    assert drafting is not None
    assert drafting.head is not None
    costs, started = sequence.costs, time.perf_counter()
    # A draft may have narrowed what the reply is held to by what the causal mode never writes.
    sequence.hold_to(state.constraint)
    ends, room = sequence.reply.end_ids, sequence.budget - sequence.committed
    draft = cut_at_end([drafting.head, *state.argmax[state.known + 1 :].tolist()], ends, room)
    hidden = _encoded(model, sequence, state, draft, encode)
    costs.encode_passes += 1
    if not bool(torch.isfinite(hidden).all()):
        sequence.fail(f"the model's output is not finite at token {sequence.committed}")
        return None
    kept, chosen, log_probs = _kept(model, sequence, draft, hidden)
    costs.drafted_tokens += len(draft) - 1
    costs.verified_tokens += kept - 1
    wanted = drafting.start + state.known + kept
    assert sequence.cache.cut(wanted) == wanted, "a cache keeps one canvas more than its window"
    sequence.last_hidden = hidden[:, kept - 1 : kept]
    costs.encode_s += time.perf_counter() - started
    costs.canvases += 1
    if costs.first_canvas_s is None:
        costs.first_canvas_s = time.perf_counter() - costs.started
    taken, log_probs = draft[:kept], [drafting.log_prob, *log_probs]
    drafting.soft, drafting.kept = state.soft, [*drafting.kept, kept]
    drafting.head, drafting.log_prob = chosen if chosen is not None else (None, 0.0)
    if chosen is not None and (chosen[0] in ends or kept + 1 == room):
        # Nothing is drafted behind it.
        taken, log_probs = [*taken, chosen[0]], [*log_probs, chosen[1]]
    sequence.canvas = None
    ids, text, shown = _added(sequence, taken)
    logprobs = tuple(log_probs[: len(ids)]) if options.logprobs else None
    sequence.logprobs += logprobs or ()
    follow(sequence, taken)
    return Commit(
        canvas=state.number,
        token_ids=tuple(ids),
        text=text,
        shown=shown,
        denoising_steps=state.steps,
        logprobs=logprobs,
    )


def _encoded(
    model: DiffusionGemma, sequence: Sequence, state: CanvasState, draft: list[int], encode: Encode | None
) -> Tensor:
    """[1, n, D] of a draft's tokens, which are encoded."""
    drafting, device = sequence.drafting, model.device
    assert isinstance(drafting, Drafting)
    assert drafting.aside is not None
    aside, drafting.aside = drafting.aside, None
    if encode is None or sequence.canvas_length != model.config.canvas_length:
        sequence.cache.bring_back(aside)
        return model.encode(torch.tensor([draft], device=device), KVCache([sequence.cache]))
    # What is launched has one shape: the block from its beginning, and anything behind the draft.
    block = [*sequence.reply.token_ids[drafting.committed :], *draft]
    block += [0] * (sequence.canvas_length - len(block))
    hidden = encode(torch.tensor([block], device=device), sequence.cache)
    return hidden[:, state.known : state.known + len(draft)]


def _kept(
    model: DiffusionGemma, sequence: Sequence, draft: list[int], hidden: Tensor
) -> tuple[int, tuple[int, float] | None, list[float]]:
    """(tokens of the draft that are kept, the next one with its log-probability, those of the kept ones behind the
    first). There is no next one where the reply has ended, or where it is chosen once these are committed."""
    log_probs: list[float] = []
    constraint, state = sequence.constraint, None
    last = sequence.budget - sequence.committed - 1
    for first in range(0, len(draft), ROWS):
        rows = model.logits(hidden[:, first : first + ROWS])[0]
        plain = _plain(sequence, rows)
        for place, row in enumerate(rows, start=first):
            if draft[place] in sequence.reply.end_ids or place == last:
                return place + 1, None, log_probs
            if plain is not None:
                chosen = plain[place - first], 0.0
            else:
                if constraint is not None:
                    same = state is not None and constraint is sequence.constraint
                    before = [draft[place]] if same else draft[: place + 1]
                    constraint = sequence.constraint
                    assert constraint is not None
                    begun = state if same and state is not None else sequence.constraint_state
                    state = constraint.automaton.advance(begun, before)
                try:
                    chosen = choose(sequence, row, draft[: place + 1], state)
                except (NothingLeftError, OptionError):
                    # It ends in this error once what stands before it is committed.
                    sequence.hold_to(constraint)
                    chosen = None
                if chosen is None:
                    return place + 1, None, log_probs
            if draft[place + 1 : place + 2] != [chosen[0]]:
                return place + 1, chosen, log_probs
            log_probs.append(chosen[1])
    raise AssertionError("the last row of a draft has nothing to keep")


def _plain(sequence: Sequence, rows: Tensor) -> list[int] | None:
    """What is chosen in each row, where that is no more than its argmax: the device is asked once."""
    options = sequence.options
    if options.temperature != 0 or options.logprobs or sequence.constraint is not None or sequence.instead:
        return None
    return rows.argmax(-1).tolist()


def _added(sequence: Sequence, taken: list[int]) -> tuple[list[int], str, str]:
    """What the reply gets of them: (ids, text, what may be shown)."""
    if not sequence.reply.stop:
        return sequence.reply.add(taken)
    # Which stop string comes first is told token by token, as the causal mode meets them.
    before, text, shown = len(sequence.reply.token_ids), "", ""
    for token in taken:
        if sequence.finished:
            break
        added = sequence.reply.add([token])
        text, shown = text + added.text, shown + added.shown
    return sequence.reply.token_ids[before:], text, shown
