"""A canvas under an automaton, exactly: its joint sample, its joint argmax, and the entropies of its marginals.

Positions are independent in the model's eyes, and the automaton ties them: P(x) is the product of p_i(x_i) over the
sequences that the automaton takes, renormalised. Sums over those run in log space, because float64 loses a state that
is e^-700 less likely than another, though it may be the only one that can still end.

Source: the forward-backward and Viterbi recursions (Rabiner 1989); Dang and Ermon, arXiv 2607.07026, for canvases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from redraft.core.automaton import Edges, TokenAutomaton
from redraft.kernels.head import inverse_cdf

# L positions, V vocabulary, S states, C classes, E edges, K sets of classes

LOG_ZERO = -np.inf


@dataclass(frozen=True, kw_only=True)
class CanvasDraw:
    """One step's results of a canvas.

    Attributes:
        argmax: the likeliest sequence that the automaton takes.
        sample: a draw from all of them.
        entropy: nats, of each position's marginal under the constraint.
    """

    argmax: Int[Tensor, "L"]
    sample: Int[Tensor, "L"]
    entropy: Float[Tensor, "L"]


def ends(automaton: TokenAutomaton, remaining: int, length: int) -> tuple[int, NDArray[np.float64]]:
    """(positions that count, log weight [S] of the state behind them) of a canvas.

    Args:
        automaton: the constraint.
        remaining: tokens that the reply may still have, this canvas included.
        length: positions of the canvas.

    Where the budget ends within the canvas, only accepting states may stand at its end. Before that, those may from
    which the shortest completion fits into what is left.
    """
    used = min(length, remaining)
    allowed = automaton.accepting if used == remaining else automaton.shortest <= remaining - used
    return used, np.where(allowed, 0.0, LOG_ZERO)


def feasible(
    automaton: TokenAutomaton, state: int, allowed: Float[Tensor, "L V"] | None, end: NDArray[np.float64], used: int
) -> bool:
    """Whether any sequence leads from `state` to an allowed end; `allowed` is 0 or -inf for each token (pins)."""
    edges = automaton.edges
    if allowed is None:
        weights = np.zeros((used, len(edges.begin)))
    else:
        weights = _best_of_sets(_largest(allowed[:used], automaton), edges)
    return bool(np.isfinite(_best_backward(weights, edges, end)[0][state]))


def draw(
    logits: Float[Tensor, "L V"],
    temperature: float,
    automaton: TokenAutomaton,
    state: int,
    end: NDArray[np.float64],
    used: int,
    uniform: Float[Tensor, "2 L"],
) -> CanvasDraw:
    """One step of a canvas that begins in `state`.

    Args:
        logits: of every position; -inf where a token is barred.
        temperature: 0 is the limit: the sample is the argmax, entropies are 0.
        automaton: the constraint.
        state: where it stands before the first position.
        end, used: see `ends`; positions behind `used` get the automaton's fill.
        uniform: two draws a position, of the edge and of the token on it.
    """
    L = len(logits)
    device, edges = logits.device, automaton.edges
    rows = logits[:used].double()
    scores = rows if temperature == 0 else torch.log_softmax(rows / temperature, dim=-1)
    largest = _largest(scores, automaton)
    argmax = _tokens(scores, automaton, _best_path(_best_of_sets(largest, edges), edges, state, end), None)
    filled = torch.full((L - used,), automaton.fill, dtype=torch.long, device=device)
    none = torch.zeros(L, dtype=torch.float64, device=device)
    if temperature == 0:
        whole = torch.cat([argmax, filled])
        return CanvasDraw(argmax=whole, sample=whole, entropy=none)
    mass, level = _masses(scores, largest, automaton)
    weights = _log_sum(mass[:, edges.member], edges.begin, np.diff(np.r_[edges.begin, len(edges.member)]))
    backward = _backward(weights, edges, end)
    path = _sampled_path(weights, edges, state, backward, uniform[0].double().cpu().numpy())
    sample = _tokens(scores, automaton, path, uniform[1, :used])
    entropy = _entropies(weights, edges, state, backward, mass, level)
    none[:used] = torch.from_numpy(entropy).to(device)
    return CanvasDraw(argmax=torch.cat([argmax, filled]), sample=torch.cat([sample, filled]), entropy=none)


def _class_index(automaton: TokenAutomaton, like: Tensor) -> Int[Tensor, "L V"]:
    """The class of every token, those that are never allowed in one class more; expanded to the rows of `like`."""
    kinds = torch.from_numpy(np.where(automaton.class_of < 0, automaton.num_classes, automaton.class_of))
    return kinds.to(like.device, torch.long).expand_as(like)


def _largest(scores: Float[Tensor, "L V"], automaton: TokenAutomaton) -> NDArray[np.float64]:
    """[L, C] the largest score of each class."""
    found = scores.new_full((len(scores), automaton.num_classes + 1), LOG_ZERO, dtype=torch.float64)
    found.scatter_reduce_(1, _class_index(automaton, scores), scores.double(), "amax")
    return found[:, :-1].cpu().numpy()


def _masses(
    scores: Float[Tensor, "L V"], largest: NDArray[np.float64], automaton: TokenAutomaton
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([L, C] log probability of each class, [L, C] expected log probability of a token within it)."""
    index = _class_index(automaton, scores)
    peak = torch.from_numpy(np.where(np.isfinite(largest), largest, 0.0)).to(scores.device)
    peak = torch.cat([peak, peak.new_zeros(len(peak), 1)], dim=1)
    share = torch.exp(scores - peak.gather(1, index))
    total = torch.zeros_like(peak).scatter_add_(1, index, share)
    finite = torch.where(share > 0, scores, 0.0)
    level = torch.zeros_like(peak).scatter_add_(1, index, share * finite)
    level = level / total.clamp(min=torch.finfo(total.dtype).tiny)
    return (peak + total.log())[:, :-1].cpu().numpy(), level[:, :-1].cpu().numpy()


def _best_of_sets(of_class: NDArray[np.float64], edges: Edges) -> NDArray[np.float64]:
    """[L, K] the largest score in each set of classes."""
    return np.maximum.reduceat(of_class[:, edges.member], edges.begin, axis=1)


def _log_sum(values: NDArray[np.float64], first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """log of the sum of exponentials over runs along the last axis."""
    peak = np.maximum.reduceat(values, first, axis=-1)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    total = np.add.reduceat(np.exp(values - np.repeat(peak, count, axis=-1)), first, axis=-1)
    with np.errstate(divide="ignore"):
        return peak + np.log(total)


def _backward(weights: NDArray[np.float64], edges: Edges, end: NDArray[np.float64]) -> NDArray[np.float64]:
    """[L + 1, S] log weight of everything that may follow each state."""
    found = np.full((len(weights) + 1, len(end)), LOG_ZERO)
    found[-1] = end
    count = np.diff(np.r_[edges.first, len(edges.source)])
    for i in range(len(weights) - 1, -1, -1):
        values = weights[i, edges.kinds] + found[i + 1, edges.target]
        found[i, edges.sources] = _log_sum(values, edges.first, count)
    return found


def _best_backward(weights: NDArray[np.float64], edges: Edges, end: NDArray[np.float64]) -> NDArray[np.float64]:
    """[L + 1, S] the best score of what may follow each state."""
    found = np.full((len(weights) + 1, len(end)), LOG_ZERO)
    found[-1] = end
    for i in range(len(weights) - 1, -1, -1):
        values = weights[i, edges.kinds] + found[i + 1, edges.target]
        found[i, edges.sources] = np.maximum.reduceat(values, edges.first)
    return found


def _forward(weights: NDArray[np.float64], edges: Edges, state: int, count: int) -> NDArray[np.float64]:
    """[L, S] log weight of everything that leads from `state` to each state before each position."""
    order = np.argsort(edges.target, kind="stable")
    source, kinds, target = edges.source[order], edges.kinds[order], edges.target[order]
    first = np.flatnonzero(np.r_[True, np.diff(target) != 0])
    runs = np.diff(np.r_[first, len(target)])
    found = np.full((len(weights), count), LOG_ZERO)
    found[0, state] = 0.0
    for i in range(len(weights) - 1):
        found[i + 1, target[first]] = _log_sum(found[i, source] + weights[i, kinds], first, runs)
    return found


def _outgoing(edges: Edges, state: int) -> slice:
    begin, end = np.searchsorted(edges.source, [state, state + 1])
    return slice(int(begin), int(end))


def _best_path(weights: NDArray[np.float64], edges: Edges, state: int, end: NDArray[np.float64]) -> list[int]:
    """The set of each position of the best sequence."""
    best = _best_backward(weights, edges, end)
    path = []
    for i in range(len(weights)):
        out = _outgoing(edges, state)
        edge = out.start + int(np.argmax(weights[i, edges.kinds[out]] + best[i + 1, edges.target[out]]))
        path.append(int(edges.kinds[edge]))
        state = int(edges.target[edge])
    return path


def _sampled_path(
    weights: NDArray[np.float64],
    edges: Edges,
    state: int,
    backward: NDArray[np.float64],
    uniform: NDArray[np.float64],
) -> list[int]:
    """The set of each position of a sequence drawn from left to right, P(edge) in proportion to what may follow."""
    path = []
    for i in range(len(weights)):
        out = _outgoing(edges, state)
        values = weights[i, edges.kinds[out]] + backward[i + 1, edges.target[out]]
        cumulative = np.exp(values - values.max()).cumsum()
        chosen = int(np.searchsorted(cumulative, uniform[i] * cumulative[-1], side="right"))
        edge = out.start + min(chosen, len(values) - 1)
        path.append(int(edges.kinds[edge]))
        state = int(edges.target[edge])
    return path


def _tokens(
    scores: Float[Tensor, "L V"], automaton: TokenAutomaton, path: list[int], uniform: Float[Tensor, "L"] | None
) -> Int[Tensor, "L"]:
    """A token of each position's set: the best, or the one that the draw means."""
    edges = automaton.edges
    begin = np.r_[edges.begin, len(edges.member)]
    member = np.zeros((len(path), automaton.num_classes + 1), np.bool_)
    for i, kind in enumerate(path):
        member[i, edges.member[begin[kind] : begin[kind + 1]]] = True
    inside = torch.from_numpy(member).to(scores.device).gather(1, _class_index(automaton, scores))
    allowed = scores.masked_fill(~inside, LOG_ZERO)
    if uniform is None:
        return allowed.argmax(-1)
    return inverse_cdf(torch.exp(allowed - allowed.amax(-1, keepdim=True)), uniform)


def _entropies(
    weights: NDArray[np.float64],
    edges: Edges,
    state: int,
    backward: NDArray[np.float64],
    mass: NDArray[np.float64],
    level: NDArray[np.float64],
) -> NDArray[np.float64]:
    """[L] nats. A token's marginal is its own probability times a factor r that its whole class shares, so
    H = - sum over classes of P(class) (log r + the mean log p within it)."""
    forward = _forward(weights, edges, state, backward.shape[1])
    around = forward[:, edges.source] + backward[1:, edges.target] - backward[0, state]
    by_set = np.argsort(edges.kinds, kind="stable")
    first = np.searchsorted(edges.kinds[by_set], np.arange(len(edges.begin)))
    of_set = _log_sum(around[:, by_set], first, np.diff(np.r_[first, len(by_set)]))
    set_of = np.repeat(np.arange(len(edges.begin)), np.diff(np.r_[edges.begin, len(edges.member)]))
    by_class = np.argsort(edges.member, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(edges.member[by_class]) != 0])
    classes = edges.member[by_class][starts]
    factor = _log_sum(of_set[:, set_of[by_class]], starts, np.diff(np.r_[starts, len(by_class)]))
    marginal = np.exp(factor + mass[:, classes])
    known = marginal > 0
    entropy = -np.where(known, marginal * np.where(known, factor + level[:, classes], 0.0), 0.0).sum(-1)
    return np.maximum(entropy, 0.0)
