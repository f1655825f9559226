"""What a few rows say of a few tokens: log-probabilities over the whole vocabulary, at temperature 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.kernels.head import entropy_of

# Rows of logits at a time: 32 of the released vocabulary are 32 MB.
ROWS = 32

# N rows, V vocabulary, D hidden


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row's distribution.

    Attributes:
        log_probs: nats, of each token that was asked for.
        entropy_nats: of all of it.
        argmax: the likeliest token.
    """

    log_probs: tuple[float, ...]
    entropy_nats: float
    argmax: int


def log_prob_tiles(
    hidden_ND: Float[Tensor, "N D"], logits_of: Callable[[Tensor], Tensor]
) -> Iterator[tuple[int, Float[Tensor, "n V"]]]:
    """(first row, log-probabilities of a tile of rows), so that no more than a tile of logits exists at a time.

    Args:
        hidden_ND: hidden states of the rows.
        logits_of: a model's `logits`.

    Raises:
        ValueError: what the model says is no number.
    """
    for first in range(0, len(hidden_ND), ROWS):
        tile = torch.log_softmax(logits_of(hidden_ND[first : first + ROWS][None])[0].float(), dim=-1)
        # One that is no number makes its whole row so.
        if not bool(torch.isfinite(tile.amax(-1)).all()):
            raise ValueError("the model's output is not finite")
        yield first, tile


def rows_of(tile: Float[Tensor, "n V"], wanted: list[tuple[int, ...]]) -> list[Row]:
    """What a tile's rows say of the tokens that are wanted of each."""
    entropies, argmax = entropy_of(tile).tolist(), tile.argmax(-1).tolist()
    return [
        Row(
            log_probs=tuple(row[torch.tensor(ids, dtype=torch.long, device=row.device)].tolist()),
            entropy_nats=entropies[i],
            argmax=argmax[i],
        )
        for i, (row, ids) in enumerate(zip(tile, wanted, strict=True))
    ]
