"""One step of a canvas under an automaton, exactly: its joint sample, its joint argmax, the entropies of its marginals.

Positions are independent in the model's eyes, and the automaton ties them: P(x) is the product of p_i(x_i) over the
sequences that the automaton takes, renormalised. `class_scores` says what classes of tokens weigh, `recursions` has the
sums over sequences. It runs on the host; where there is a compiler, all of it is one native call.

Source: the forward-backward and Viterbi recursions (Rabiner 1989); Dang and Ermon, arXiv 2607.07026, for canvases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from redraft.core.automaton import TokenAutomaton
from redraft.kernels import recursions
from redraft.kernels.accelerator import has_float64
from redraft.kernels.class_scores import ClassScores, first_above
from redraft.kernels.native.call import call, expect, runs_natively

# L positions, S states, C classes, K sets of classes, X explicit tokens, G broad classes

_NOTHING = "no sequence that the automaton takes is left"


class NothingLeftError(ValueError):
    """No sequence is left that the automaton takes."""


@dataclass(frozen=True, kw_only=True)
class CanvasDraw:
    """One step's results of a canvas.

    Attributes:
        argmax: the likeliest sequence that the automaton takes.
        sample: a draw from all of them.
        entropy: nats, of each position's marginal under the constraint.
        local: nats, of each position's own distribution over the tokens that any sequence could have there.
        best_log_prob: nats, of `argmax`, in its position's marginal or own distribution: whichever is lower.
    """

    argmax: Int[Tensor, "L"]
    sample: Int[Tensor, "L"]
    entropy: Float[Tensor, "L"]
    local: Float[Tensor, "L"]
    best_log_prob: Float[Tensor, "L"]


def draw(
    scores: ClassScores,
    temperature: float,
    automaton: TokenAutomaton,
    state: int,
    end: NDArray[np.float64],
    used: int,
    uniform: Float[Tensor, "2 L"],
) -> CanvasDraw:
    """One step of a canvas that begins in `state`.

    Args:
        scores: of every position, for the automaton's classes.
        temperature: of the scores; 0 is the limit: the sample is the argmax, all nats are 0.
        automaton: the constraint.
        state: where it stands before the first position.
        end: [S] log weight of each state behind the last position that counts.
        used: positions that count; those behind get the automaton's fill.
        uniform: two draws a position, of the edge and of the token on it.

    Returns:
        Tensors where `uniform` is.

    Raises:
        NothingLeftError: no sequence is left.
        ValueError: the arguments do not fit each other.
    """
    L, device = len(scores), uniform.device
    _check(scores, automaton, state, end, uniform)
    explicit = scores.explicit[:used].cpu().contiguous()
    form = _native if runs_natively("paths", explicit, kinds=(torch.float32,)) else _reference
    found = form(explicit, scores, temperature, automaton, state, end, uniform[:, :used].cpu().double().contiguous())
    argmax, sample, entropy, local, best_log_prob = found
    kind = torch.float64 if has_float64(device) else torch.float32
    filled = torch.full((L - used,), automaton.fill, dtype=torch.long)
    sure = entropy.new_zeros(L - used)
    return CanvasDraw(
        argmax=torch.cat([argmax, filled]).to(device),
        sample=torch.cat([sample, filled]).to(device),
        entropy=torch.cat([entropy, sure]).to(kind).to(device),
        local=torch.cat([local, sure]).to(kind).to(device),
        best_log_prob=torch.cat([best_log_prob, sure]).to(kind).to(device),
    )


def _check(
    scores: ClassScores, automaton: TokenAutomaton, state: int, end: NDArray[np.float64], uniform: Tensor
) -> None:
    """What the automaton's tables say, it has checked itself."""
    L, parts, broad = len(scores), scores.parts, scores.broad
    if parts is not automaton.parts:
        raise ValueError("the scores are of another automaton's classes")
    expect("the explicit scores", scores.explicit.contiguous(), L, len(parts.ids))
    for tensor in (broad.best, broad.token, broad.log_mass, broad.level):
        expect("the broad classes' scores", tensor.contiguous(), L, len(parts.broad))
    expect("the states' ends", torch.from_numpy(end), automaton.num_states)
    expect("the draws", uniform.contiguous(), 2, L)
    if not 0 <= state < automaton.num_states:
        raise ValueError(f"the automaton has no state {state}")


def _native(
    explicit: Float[Tensor, "L X"],
    scores: ClassScores,
    temperature: float,
    automaton: TokenAutomaton,
    state: int,
    end: NDArray[np.float64],
    uniform: Float[Tensor, "2 L"],
) -> tuple[Tensor, ...]:
    """(argmax, sample, entropy, local, best_log_prob), each [L], in one call."""
    L, X = explicit.shape
    edges, parts, broad = automaton.edges, scores.parts, scores.broad
    argmax, sample = torch.empty(2, L, dtype=torch.long)
    entropy, local, best_log_prob, rest = torch.zeros(4, L, dtype=torch.float64)
    scale = torch.tensor([scores.scale], dtype=torch.float64)
    tokens = [torch.from_numpy(x) for x in (parts.kinds, parts.ids)]
    classes = [x[:L].contiguous() for x in (broad.best, broad.token, broad.log_mass, broad.level)]
    table = [torch.from_numpy(x) for x in (automaton.offsets, edges.target, edges.kinds)]
    sets = [torch.from_numpy(x) for x in (edges.begins, edges.member)]
    call(
        "paths", "canvas_paths", explicit, L, X, scale, *tokens, len(parts.broad), torch.from_numpy(parts.broad),
        *classes, int(temperature != 0), automaton.num_classes, *table, automaton.num_states, *sets,
        len(edges.begins) - 1, torch.from_numpy(end), state, uniform, argmax, sample, rest, entropy, local,
        best_log_prob,
    )  # fmt: skip
    if int(argmax[0]) < 0:
        raise NothingLeftError(_NOTHING)
    if temperature == 0:
        return argmax, argmax, entropy, local, best_log_prob
    return argmax, _with_broad(sample, rest, scores), entropy, local, best_log_prob


def _with_broad(sample: Int[Tensor, "L"], rest: Float[Tensor, "L"], scores: ClassScores) -> Int[Tensor, "L"]:
    """-1 - g in a sample is the token of broad class g that the rest of the draw means."""
    places = torch.nonzero(sample < 0)[:, 0]
    if len(places):
        sample = sample.index_copy(0, places, scores.broad.draw(places, -1 - sample[places], rest[places]))
    return sample


def _reference(
    explicit: Float[Tensor, "L X"],
    scores: ClassScores,
    temperature: float,
    automaton: TokenAutomaton,
    state: int,
    end: NDArray[np.float64],
    uniform: Float[Tensor, "2 L"],
) -> tuple[Tensor, ...]:
    """(argmax, sample, entropy, local, best_log_prob), each [L], the definition."""
    edges, L = automaton.edges, len(explicit)
    rows = explicit.double() * scores.scale
    best = _best_of_classes(rows, scores)
    path = recursions.best_path(recursions.best_of_sets(best, edges), edges, state, end)
    if path is None:
        raise NothingLeftError(_NOTHING)
    argmax = _tokens(rows, scores, automaton, path, None)
    if temperature == 0:
        return argmax, argmax, *rows.new_zeros(3, L)
    mass, level = _masses(rows, best, scores)
    weights = recursions.log_sum(mass[:, edges.member], edges.begins[:-1], np.diff(edges.begins))
    backward = recursions.backward(weights, edges, end)
    path = recursions.sampled_path(weights, edges, state, backward, uniform[0].numpy())
    sample = _tokens(rows, scores, automaton, path, uniform[1])
    kinds = automaton.class_of[argmax.numpy()].astype(np.int64)
    score = best[np.arange(L), kinds]
    nats = recursions.marginals(weights, edges, state, backward, mass, level, kinds, score)
    return argmax, sample, *(torch.from_numpy(values) for values in nats)


def _best_of_classes(rows: Float[Tensor, "L X"], scores: ClassScores) -> NDArray[np.float64]:
    """[L, C] the largest score of each class."""
    kinds = torch.from_numpy(scores.parts.kinds).long().expand_as(rows)
    found = rows.new_full((len(rows), scores.parts.num_classes), recursions.LOG_ZERO)
    found.scatter_reduce_(1, kinds, rows, "amax")
    found[:, torch.from_numpy(scores.parts.broad)] = scores.broad.best[: len(rows)]
    return found.numpy()


def _masses(
    rows: Float[Tensor, "L X"], best: NDArray[np.float64], scores: ClassScores
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([L, C] log mass of each class, [L, C] mean score of a token within it)."""
    kinds = torch.from_numpy(scores.parts.kinds).long().expand_as(rows)
    peak = torch.from_numpy(np.where(np.isfinite(best), best, 0.0))
    share = torch.exp(rows - peak.gather(1, kinds))
    total = torch.zeros_like(peak).scatter_add_(1, kinds, share)
    level = torch.zeros_like(peak).scatter_add_(1, kinds, share * torch.where(share > 0, rows, 0.0))
    level = level / total.clamp(min=torch.finfo(total.dtype).tiny)
    mass = peak + total.log()
    broad = torch.from_numpy(scores.parts.broad)
    mass[:, broad], level[:, broad] = (x[: len(rows)] for x in (scores.broad.log_mass, scores.broad.level))
    return mass.numpy(), level.numpy()


def _tokens(
    rows: Float[Tensor, "L X"],
    scores: ClassScores,
    automaton: TokenAutomaton,
    path: list[int],
    uniform: Float[Tensor, "L"] | None,
) -> Int[Tensor, "L"]:
    """A token of each position's set: the best, or the one that the draw means, as `pick` in paths.cpp has it."""
    parts, broad = scores.parts, scores.broad
    found, rest = torch.zeros(len(path), dtype=torch.long), torch.zeros(len(path), dtype=torch.float64)
    for i, kind in enumerate(path):
        member = np.zeros(parts.num_classes, np.bool_)
        member[automaton.edges.classes(kind)] = True
        inside, groups = np.flatnonzero(member[parts.kinds]), np.flatnonzero(member[parts.broad])
        candidates = torch.cat([rows[i, inside], broad.best[i, groups]])
        if uniform is None:
            tokens = torch.cat([torch.from_numpy(parts.ids[inside]), broad.token[i, groups]])
            found[i] = tokens[candidates == candidates.max()].min()
            continue
        weights = torch.cat([rows[i, inside], broad.log_mass[i, groups]]) - candidates.max()
        cumulative = weights.exp().cumsum(0)
        threshold = uniform[i] * cumulative[-1]
        place = int(first_above(cumulative[None], threshold[None]))
        if place < len(inside):
            found[i] = int(parts.ids[inside[place]])
        else:
            found[i] = -1 - int(groups[place - len(inside)])
            before = cumulative[place - 1] if place else 0.0
            rest[i] = ((threshold - before) / weights[place].exp()).clamp(0.0, 1 - 2.0**-53)
    return found if uniform is None else _with_broad(found, rest, scores)
