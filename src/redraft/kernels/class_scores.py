"""What each position of a canvas says of each class of an automaton's tokens.

Tokens of small classes are given one by one, a class of nearly the whole vocabulary as a whole: its best token, its
mass, and a way to draw one of its tokens. So nothing has the size of positions by vocabulary. `watched` makes these
where the head runs; the definition, from logits, is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.kernels.accelerator import has_float64

# L positions, X explicit tokens, G broad classes, V vocabulary, P draws


@dataclass(frozen=True, kw_only=True)
class BroadScores:
    """Broad classes at each position, in float64 on the host.

    Attributes:
        best: largest score in the class.
        token: its token.
        log_mass: log of the sum of exp(score).
        level: mean score under softmax(score) within the class.
        draw: token ids for (positions, numbers of classes, draws in [0, 1)), by inverse CDF.
    """

    best: Float[Tensor, "L G"]
    token: Int[Tensor, "L G"]
    log_mass: Float[Tensor, "L G"]
    level: Float[Tensor, "L G"]
    draw: Callable[[Int[Tensor, "P"], Int[Tensor, "P"], Float[Tensor, "P"]], Int[Tensor, "P"]]


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores at each position, up to a constant of the position.

    Attributes:
        parts: which tokens are explicit, and which classes broad.
        explicit: float32, -inf where a token is barred.
        scale: what `explicit` is multiplied with to be a score.
        broad: the others.
    """

    parts: Parts
    explicit: Float[Tensor, "L X"]
    scale: float
    broad: BroadScores

    def __len__(self) -> int:
        """L."""
        return len(self.explicit)

    def barred(self, token_ids: Sequence[int], where: Bool[Tensor, "L"]) -> ClassScores:
        """Without these tokens at some positions.

        Raises:
            ValueError: one of them is of a broad class.
        """
        if bool((self.parts.broad_of[list(token_ids)] >= 0).any()):
            raise ValueError("a token that is barred at some positions must be explicit")
        places = torch.from_numpy(self.parts.explicit(list(token_ids)))
        explicit = self.explicit.clone()
        explicit[:, places] = explicit[:, places].masked_fill(where.to(explicit.device)[:, None], -torch.inf)
        return replace(self, explicit=explicit)

    def pinned(self, token_ids: Int[Tensor, "L"]) -> ClassScores:
        """With nothing but this token at each position; where it is negative, with everything."""
        token_ids = token_ids.cpu()
        rows = torch.nonzero(token_ids >= 0)[:, 0]
        explicit = self.explicit.clone()
        explicit[rows] = -torch.inf
        best, log_mass = self.broad.best.clone(), self.broad.log_mass.clone()
        token, level = self.broad.token.clone(), self.broad.level.clone()
        best[rows] = log_mass[rows] = -torch.inf
        for row in rows.tolist():
            held = int(token_ids[row])
            group = int(self.parts.broad_of[held])
            # A constant of the position is free, and so is the score of the only token that is left.
            if group >= 0:
                best[row, group] = log_mass[row, group] = level[row, group] = 0.0
                token[row, group] = held
            else:
                explicit[row, torch.from_numpy(self.parts.explicit([held]))] = 0.0

        def draw(places: Tensor, groups: Tensor, uniform: Tensor) -> Tensor:
            found = self.broad.draw(places, groups, uniform)
            return torch.where(token_ids[places] >= 0, token_ids[places], found)

        broad = BroadScores(best=best, token=token, log_mass=log_mass, level=level, draw=draw)
        return replace(self, explicit=explicit, broad=broad)


def of_logits(logits: Float[Tensor, "L V"], temperature: float, parts: Parts) -> ClassScores:
    """The definition: softmax(logits / temperature), or the bare logits at temperature 0.

    Args:
        logits: -inf where a token is barred.
        temperature: 0 is the limit, of which only what is best counts.
        parts: of the vocabulary.

    Raises:
        ValueError: of a vocabulary of another size.
    """
    L, V = logits.shape
    if len(parts.broad_of) != V:
        raise ValueError(f"{V} logits for an automaton that has the classes of {len(parts.broad_of)} tokens")
    if not has_float64(logits.device):
        logits = logits.cpu()
    scale = 1.0 / temperature if temperature else 1.0
    ids = torch.from_numpy(parts.ids).to(logits.device)
    of_token = torch.from_numpy(parts.broad_of).to(logits.device)
    scores = [logits[:, of_token == group].double() * scale for group in range(len(parts.broad))]
    tokens = [torch.nonzero(of_token == group)[:, 0].cpu() for group in range(len(parts.broad))]

    def draw(places: Tensor, groups: Tensor, uniform: Tensor) -> Tensor:
        found = torch.zeros(len(places), dtype=torch.long)
        for group in range(len(scores)):
            of_group = groups == group
            row = scores[group][places[of_group].to(logits.device)]
            cumulative = (row - row.amax(-1, keepdim=True)).exp().cumsum(-1).cpu()
            found[of_group] = tokens[group][first_above(cumulative, uniform[of_group].double() * cumulative[:, -1])]
        return found

    found = [_of_class(part, of_class) for part, of_class in zip(scores, tokens, strict=True)]
    best, token, log_mass, level = (
        torch.stack([one[field] for one in found], dim=1) if found else torch.zeros(L, 0, dtype=kind)
        for field, kind in enumerate((torch.float64, torch.long, torch.float64, torch.float64))
    )
    return ClassScores(
        parts=parts,
        explicit=logits.float()[:, ids],
        scale=scale,
        broad=BroadScores(best=best, token=token, log_mass=log_mass, level=level, draw=draw),
    )


def _of_class(scores: Float[Tensor, "L V"], tokens: Int[Tensor, "V"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(best, token, log_mass, level), each [L], of the tokens of one class."""
    best, place = scores.max(-1)
    log_mass = torch.logsumexp(scores, -1)
    share = (scores - log_mass[:, None]).exp().nan_to_num(0.0)
    level = torch.where(share > 0, share * scores, 0.0).sum(-1)
    return best.cpu(), tokens[place.cpu()], log_mass.cpu(), level.cpu()


def first_above(cumulative: Float[Tensor, "N J"], threshold: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """The first entry above the threshold; where rounding leaves none, the last one that adds anything."""
    threshold = torch.minimum(threshold, cumulative[:, -1] * (1 - 1e-12))
    found = torch.searchsorted(cumulative, threshold[:, None].contiguous(), right=True)[:, 0]
    return found.clamp(max=cumulative.shape[1] - 1)
