"""What the model finds in canvases at a step, operator by operator."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.engine.canvas import NOISE_STEPS, CanvasState
from redraft.engine.freeze import Frozen
from redraft.engine.sequence import Sequence
from redraft.engine.steer import watched
from redraft.kernels.head_stats import HeadStats
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma
from redraft.model.some import denoise_some


def look(
    model: DiffusionGemma, group: Rows[Sequence], states: Rows[CanvasState], temperatures: Rows[float]
) -> tuple[Float[Tensor, "B L D"], HeadStats]:
    """(hidden states of each canvas, what the head says of them). A canvas whose positions may freeze comes alone."""
    if group[0].options.freeze_nats:
        assert len(group) == 1
        return _some(model, group[0], states[0], temperatures[0])
    hidden = model.denoise_hidden(
        torch.stack([state.tokens for state in states]),
        KVCache(sequence.cache for sequence in group),
        _soft(states),
    )
    uniform = torch.stack([state.uniform[state.taken % NOISE_STEPS] for state in states])
    degrees = torch.tensor(temperatures, device=model.device)
    return hidden, model.head(hidden, degrees, uniform, [watched(sequence) for sequence in group])


def freeze(sequence: Sequence, state: CanvasState) -> None:
    """Freezes what a step has shown to be settled: it keeps its token from here on."""
    if state.frozen is None:
        return
    state.frozen.freeze(state.tokens, sequence.options.freeze_nats)
    still = state.frozen.still
    state.kept = still if state.kept is None else state.kept | still


def _some(
    model: DiffusionGemma, sequence: Sequence, state: CanvasState, temperature: float
) -> tuple[Float[Tensor, "1 L D"], HeadStats]:
    if state.frozen is None:
        state.frozen = Frozen.none(state.length, model.device)
    places = torch.nonzero(~state.frozen.still)[:, 0]
    soft = None if state.soft is None else state.soft[places]
    found = denoise_some(model, state.tokens[places], places, sequence.cache, state.frozen.keys, soft)
    hidden = state.frozen.see(places, found)
    uniform, degree = state.uniform[state.taken % NOISE_STEPS], torch.tensor([temperature], device=model.device)
    parts = watched(sequence)
    if parts is not None:
        # An automaton's classes are asked of all positions.
        places, found = torch.arange(state.length, device=model.device), hidden
    stats = model.head(found[None], degree, uniform[None, places], [parts])
    return hidden[None], state.frozen.joined(places, stats)


def _soft(states: Rows[CanvasState]) -> Tensor | None:
    known = [state.soft for state in states if state.soft is not None]
    if not known:
        return None
    # A row of zeros is a true zero signal: the conditioning MLP has no bias.
    zero = torch.zeros_like(known[0])
    return torch.stack([zero if state.soft is None else state.soft for state in states])
