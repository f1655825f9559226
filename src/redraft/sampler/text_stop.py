"""When a canvas is done by its text: little is left undecided in all of it, or it has stood long enough.

The text is what stands up to and with the first end-of-turn; what lies behind is no part of a reply. The reference
asks for the mean entropy of all positions (`stop`), which a short canvas reaches only when its last coin flip has
fallen, and some never; a sum over the text means the same at every length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.core.options import GenerationOptions

# B canvases, L positions, E ids that end a turn

# Of mini's canvases that take as much of the schedule, a quarter is right then, and no more at its end.
LATE_SHARE = 2 / 3
# No token id: fills up a row of ends.
NO_ID = -2
# A span that comes so often in a row, over so many tokens, is a canvas that has collapsed; a list of two hundred
# zeros looks the same, and waits for the reference's rule.
REPEATED, REPEATED_TOKENS, LONGEST_SPAN = 4, 16, 16


def is_end(token_ids: Int[Tensor, "B L"], ends: Int[Tensor, "B E"]) -> Bool[Tensor, "B L"]:
    """Where a token ends the turn."""
    return (token_ids[..., None] == ends[:, None]).any(-1)


def text_places(token_ids: Int[Tensor, "B L"], ends: Int[Tensor, "B E"]) -> Bool[Tensor, "B L"]:
    """The positions up to and with the first end."""
    found = is_end(token_ids, ends).long()
    return found.cumsum(-1) - found == 0


def same_text(before: Int[Tensor, "B L"], now: Int[Tensor, "B L"], ends: Int[Tensor, "B E"]) -> Bool[Tensor, "B"]:
    """Whether two canvases have one text; ends are all alike."""
    alike = (before == now) | (is_end(before, ends) & is_end(now, ends))
    return (alike | ~text_places(now, ends)).all(-1)


def left_of(
    entropy: Float[Tensor, "B L"], token_ids: Int[Tensor, "B L"], ends: Int[Tensor, "B E"]
) -> Float[Tensor, "B"]:
    """Nats that are left in the text: the sum of its entropies."""
    return torch.where(text_places(token_ids, ends), entropy, 0.0).sum(-1)


def done_by_text(stood: int, left_nats: float, step: int, options: GenerationOptions) -> bool:
    """Whether the text is settled.

    Args:
        stood: steps since it last changed.
        left_nats: what is left in its positions that are free.
        step: its place in the schedule, from 0.
        options: `stability_threshold`, that it must have stood for in any case; `settled_nats` and `settled_steps`. In
            the schedule's last part, having stood is enough.
    """
    if stood < options.stability_threshold:
        return False
    is_late = stood > 0 and step >= LATE_SHARE * options.max_denoising_steps
    patient = bool(options.settled_steps) and (stood >= options.settled_steps or is_late)
    return patient or left_nats < options.settled_nats


def repeats(token_ids: Sequence[int]) -> bool:
    """Whether a span of up to `LONGEST_SPAN` tokens comes `REPEATED` times or more in a row, over `REPEATED_TOKENS`
    tokens or more."""
    ids = np.asarray(token_ids)
    for span in range(1, LONGEST_SPAN + 1):
        covered = max(REPEATED * span, REPEATED_TOKENS)
        # So many tokens in a row that equal the one a span before.
        wanted = covered - span
        if len(ids) < covered:
            break
        runs = np.concatenate(([0], np.cumsum(ids[span:] == ids[:-span])))
        if (runs[wanted:] - runs[:-wanted]).max(initial=0) == wanted:
            return True
    return False
