"""One step of a canvas under an automaton, exactly: its joint sample, its joint argmax, the entropies of its marginals.

Positions are independent in the model's eyes, and the automaton ties them: P(x) is the product of p_i(x_i) over the
sequences that the automaton takes, renormalised. Here are the scores of classes of tokens, and the choice of tokens;
`recursions` has the sums over sequences. On a CPU all of it is one native call.

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
from redraft.kernels.head import inverse_cdf
from redraft.kernels.native.call import call, expect, runs_natively

# L positions, V vocabulary, S states, C classes, K sets of classes

_NOTHING = "no sequence that the automaton takes is left"


@dataclass(frozen=True, kw_only=True)
class CanvasDraw:
    """One step's results of a canvas.

    Attributes:
        argmax: the likeliest sequence that the automaton takes.
        sample: a draw from all of them.
        entropy: nats, of each position's marginal under the constraint.
        local: nats, of each position's own distribution over the tokens that any sequence could have there.
    """

    argmax: Int[Tensor, "L"]
    sample: Int[Tensor, "L"]
    entropy: Float[Tensor, "L"]
    local: Float[Tensor, "L"]


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
        logits: of every position, finite; -inf where a token is barred.
        temperature: 0 is the limit: the sample is the argmax, entropies are 0.
        automaton: the constraint.
        state: where it stands before the first position.
        end: [S] log weight of each state behind the last position that counts.
        used: positions that count; those behind get the automaton's fill.
        uniform: two draws a position, of the edge and of the token on it.
    """
    L, device = len(logits), logits.device
    rows = logits[:used]
    if not has_float64(device):
        rows, uniform = rows.cpu(), uniform.cpu()
    if runs_natively("paths", rows, kinds=(torch.float32,)):
        argmax, sample, entropy, local = _native(rows, temperature, automaton, state, end, uniform[:, :used])
    else:
        argmax, sample, entropy, local = _reference(rows, temperature, automaton, state, end, uniform[:, :used])
    if not has_float64(device):
        argmax, sample, entropy, local = (x.to(device) for x in (argmax, sample, entropy.float(), local.float()))
    filled = torch.full((L - used,), automaton.fill, dtype=torch.long, device=device)
    sure = entropy.new_zeros(L - used)
    return CanvasDraw(
        argmax=torch.cat([argmax, filled]),
        sample=torch.cat([sample, filled]),
        entropy=torch.cat([entropy, sure]),
        local=torch.cat([local, sure]),
    )


def _reference(
    logits: Float[Tensor, "L V"],
    temperature: float,
    automaton: TokenAutomaton,
    state: int,
    end: NDArray[np.float64],
    uniform: Float[Tensor, "2 L"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(argmax, sample, entropy, local), each [L], the definition."""
    edges, rows = automaton.edges, logits.double()
    scores = rows if temperature == 0 else torch.log_softmax(rows / temperature, dim=-1)
    largest = largest_of_classes(scores, automaton)
    best = recursions.best_path(recursions.best_of_sets(largest, edges), edges, state, end)
    if best is None:
        raise ValueError(_NOTHING)
    argmax = _tokens(scores, automaton, best, None)
    if temperature == 0:
        return argmax, argmax, rows.new_zeros(len(rows)), rows.new_zeros(len(rows))
    mass, level = _masses(scores, largest, automaton)
    weights = recursions.log_sum(mass[:, edges.member], edges.begin, np.diff(edges.begins))
    backward = recursions.backward(weights, edges, end)
    path = recursions.sampled_path(weights, edges, state, backward, uniform[0].double().cpu().numpy())
    sample = _tokens(scores, automaton, path, uniform[1])
    found = recursions.entropies(weights, edges, state, backward, mass, level)
    entropy, local = (torch.from_numpy(values).to(logits.device) for values in found)
    return argmax, sample, entropy, local


def _native(
    logits: Float[Tensor, "L V"],
    temperature: float,
    automaton: TokenAutomaton,
    state: int,
    end: NDArray[np.float64],
    uniform: Float[Tensor, "2 L"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(argmax, sample, entropy, local), each [L], in one call."""
    L, V = logits.shape
    edges = automaton.edges
    argmax, sample = torch.empty(2, L, dtype=torch.long)
    entropy, local = torch.zeros(2, L, dtype=torch.float64)
    scale = torch.tensor([1.0 / temperature if temperature else 0.0], dtype=torch.float64)
    table = [torch.from_numpy(x) for x in (automaton.offsets, edges.target, edges.kinds)]
    sets = [torch.from_numpy(x) for x in (edges.begins, edges.member)]
    of_token, last = torch.from_numpy(automaton.class_of), torch.from_numpy(end)
    # What the tables say, the automaton has checked.
    expect("the automaton's classes", of_token, V)
    expect("the states' ends", last, automaton.num_states)
    expect("the draws", uniform := uniform.double().contiguous(), 2, L)
    if not 0 <= state < automaton.num_states:
        raise ValueError(f"the automaton has no state {state}")
    call(
        "paths", "canvas_paths", logits, L, V, scale, of_token, automaton.num_classes, *table, automaton.num_states,
        *sets, len(edges.begin), last, state, uniform, argmax, sample, entropy,
        local,
    )  # fmt: skip
    if int(argmax[0]) < 0:
        raise ValueError(_NOTHING)
    return argmax, argmax if temperature == 0 else sample, entropy, local


def _class_index(automaton: TokenAutomaton, like: Tensor) -> Int[Tensor, "L V"]:
    """The class of every token, those that are never allowed in one class more; expanded to the rows of `like`."""
    kinds = torch.from_numpy(np.where(automaton.class_of < 0, automaton.num_classes, automaton.class_of))
    return kinds.to(like.device, torch.long).expand_as(like)


def largest_of_classes(scores: Float[Tensor, "L V"], automaton: TokenAutomaton) -> NDArray[np.float64]:
    """[L, C] the largest score of each class."""
    found = scores.new_full((len(scores), automaton.num_classes + 1), recursions.LOG_ZERO, dtype=torch.float64)
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


def _tokens(
    scores: Float[Tensor, "L V"], automaton: TokenAutomaton, path: list[int], uniform: Float[Tensor, "L"] | None
) -> Int[Tensor, "L"]:
    """A token of each position's set: the best, or the one that the draw means."""
    edges = automaton.edges
    member = np.zeros((len(path), automaton.num_classes + 1), np.bool_)
    for i, kind in enumerate(path):
        member[i, edges.member[edges.begins[kind] : edges.begins[kind + 1]]] = True
    inside = torch.from_numpy(member).to(scores.device).gather(1, _class_index(automaton, scores))
    allowed = scores.masked_fill(~inside, recursions.LOG_ZERO)
    if uniform is None:
        return allowed.argmax(-1)
    return inverse_cdf(torch.exp(allowed - allowed.amax(-1, keepdim=True)), uniform)
