"""Sums and maxima over all sequences that an automaton takes, in log space.

float64 itself would lose a state that is e^-700 less likely than another, though it may be the only one that can still
end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import Edges

# L positions, S states, C classes, K sets of classes

LOG_ZERO = -np.inf


def best_of_sets(of_class: NDArray[np.float64], edges: Edges) -> NDArray[np.float64]:
    """[L, K] the largest score in each set of classes."""
    return np.maximum.reduceat(of_class[:, edges.member], edges.begins[:-1], axis=1)


def log_sum(values: NDArray[np.float64], first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """log of the sum of exponentials over runs along the last axis."""
    peak = np.maximum.reduceat(values, first, axis=-1)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    total = np.add.reduceat(np.exp(values - np.repeat(peak, count, axis=-1)), first, axis=-1)
    with np.errstate(divide="ignore"):
        return peak + np.log(total)


def backward(weights: NDArray[np.float64], edges: Edges, end: NDArray[np.float64]) -> NDArray[np.float64]:
    """[L + 1, S] log weight of everything that may follow each state."""
    found = np.full((len(weights) + 1, len(end)), LOG_ZERO)
    found[-1] = end
    count = np.diff(np.r_[edges.first, len(edges.source)])
    for i in range(len(weights) - 1, -1, -1):
        values = weights[i, edges.kinds] + found[i + 1, edges.target]
        found[i, edges.sources] = log_sum(values, edges.first, count)
    return found


def best_backward(weights: NDArray[np.float64], edges: Edges, end: NDArray[np.float64]) -> NDArray[np.float64]:
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
        found[i + 1, target[first]] = log_sum(found[i, source] + weights[i, kinds], first, runs)
    return found


def _outgoing(edges: Edges, state: int) -> slice:
    begin, end = np.searchsorted(edges.source, [state, state + 1])
    return slice(int(begin), int(end))


def best_path(weights: NDArray[np.float64], edges: Edges, state: int, end: NDArray[np.float64]) -> list[int] | None:
    """The set of each position of the best sequence; None where there is none."""
    best = best_backward(weights, edges, end)
    if not np.isfinite(best[0, state]):
        return None
    path = []
    for i in range(len(weights)):
        out = _outgoing(edges, state)
        edge = out.start + int(np.argmax(weights[i, edges.kinds[out]] + best[i + 1, edges.target[out]]))
        path.append(int(edges.kinds[edge]))
        state = int(edges.target[edge])
    return path


def sampled_path(
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


def marginals(
    weights: NDArray[np.float64],
    edges: Edges,
    state: int,
    backward: NDArray[np.float64],
    mass: NDArray[np.float64],
    level: NDArray[np.float64],
    best: NDArray[np.int64],
    score: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """([L] entropies in nats of the marginals; [L] of each position's own distribution over the tokens that are
    possible; [L] nats of the token of class `best` that has this `score`, in whichever of the two makes less of it).

    A token's marginal is its own probability times a factor r that its whole class shares, so
    H = - sum over classes of P(class) (log r + the mean log p within it).
    """
    forward = _forward(weights, edges, state, backward.shape[1])
    around = forward[:, edges.source] + backward[1:, edges.target] - backward[0, state]
    by_set = np.argsort(edges.kinds, kind="stable")
    first = np.searchsorted(edges.kinds[by_set], np.arange(len(edges.begins) - 1))
    of_set = log_sum(around[:, by_set], first, np.diff(np.r_[first, len(by_set)]))
    set_of = np.repeat(np.arange(len(edges.begins) - 1), np.diff(edges.begins))
    by_class = np.argsort(edges.member, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(edges.member[by_class]) != 0])
    classes = edges.member[by_class][starts]
    factor = log_sum(of_set[:, set_of[by_class]], starts, np.diff(np.r_[starts, len(by_class)]))
    marginal = np.exp(factor + mass[:, classes])
    known = marginal > 0
    entropy = -np.where(known, marginal * np.where(known, factor + level[:, classes], 0.0), 0.0).sum(-1)
    own = np.where(np.isfinite(factor), mass[:, classes], LOG_ZERO)
    total = np.logaddexp.reduce(own, axis=-1, keepdims=True)
    share = np.exp(own - total)
    local = total[:, 0] - np.where(share > 0, share * level[:, classes], 0.0).sum(-1)
    of_best = factor[np.arange(len(best)), np.searchsorted(classes, best)]
    log_prob = np.minimum(score + of_best, score - total[:, 0])
    return np.maximum(entropy, 0.0), np.maximum(local, 0.0), np.minimum(log_prob, 0.0)
