"""The judge: what the causal mode thinks of a canvas. Encoding a canvas is due anyway when another one follows."""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor

from redraft.core.results import Doubt
from redraft.engine.sequence import Sequence
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma
from redraft.text.tokenizer import Tokenizer

# Rows of logits at a time: 32 of the released vocabulary are 32 MB.
ROWS = 32
# A token of less than a tenth, where the causal mode has no wider choice: see `doubtful`.
DOUBT_NATS = 2.3


def cut_at_end(canvas: list[int], end_ids: frozenset[int], room: int) -> list[int]:
    """A canvas up to and with its first end-of-turn, and within the budget; what lies behind it is padding."""
    end = next((i + 1 for i, token in enumerate(canvas) if token in end_ids), len(canvas))
    return canvas[: min(end, room)]


def score(
    model: DiffusionGemma, sequence: Sequence, token_ids: list[int]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"], Tensor]:
    """Reads these ids: (log-probability of each, entropy of the distribution it was taken from, last hidden state)."""
    assert sequence.last_hidden is not None
    started = time.perf_counter()
    ids = torch.tensor(token_ids, device=model.device)
    hidden = model.encode(ids[None], KVCache([sequence.cache]))
    sequence.costs.encode_passes += 1
    before = torch.cat([sequence.last_hidden, hidden[:, :-1]], dim=1)
    log_probs, entropies = [], []
    for rows, targets in zip(before.split(ROWS, dim=1), ids.split(ROWS), strict=True):
        table = torch.log_softmax(model.logits(rows)[0], dim=-1)
        log_probs.append(table.gather(-1, targets[:, None])[:, 0])
        entropies.append(-(table.exp() * table).sum(-1))
    sequence.costs.encode_s += time.perf_counter() - started
    return torch.cat(log_probs), torch.cat(entropies), hidden[:, -1:]


def doubtful(log_probs: Float[Tensor, "n"], entropies: Float[Tensor, "n"]) -> list[int]:
    """Places of tokens that are far less likely than what one expects there: log p + H < -`DOUBT_NATS`.

    Where many continuations are as good, each has a low probability; adding the entropy leaves those alone.
    """
    return torch.nonzero(log_probs + entropies < -DOUBT_NATS)[:, 0].tolist()


def spans(
    token_ids: list[int], places: list[int], log_probs: list[float], tokenizer: Tokenizer | None
) -> tuple[Doubt, ...]:
    """Doubted places as parts of the text, neighbours together."""
    if tokenizer is None:
        return ()
    found: list[Doubt] = []
    for place in places:
        start, end = (len(tokenizer.decode(token_ids[:n])) for n in (place, place + 1))
        least = log_probs[place]
        if found and found[-1].end >= start:
            start, least = found[-1].start, min(found.pop().log_prob, least)
        text = tokenizer.decode(token_ids)[start:end]
        found.append(Doubt(start=start, end=end, text=text, log_prob=least))
    return tuple(found)
