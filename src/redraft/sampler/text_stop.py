"""When a canvas is done by its text: little is left undecided in all of it, or it has stood long enough.

The text is what stands up to and with the first end-of-turn; what lies behind is no part of a reply. The reference
asks for the mean entropy of all positions (`stop`), which a short canvas reaches only when its last coin flip has
fallen, and some never; a sum over the text means the same at every length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

# B canvases, L positions, E ids that end a turn

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


def done_by_text(
    stood: Int[Tensor, "B"],
    left: Float[Tensor, "B"],
    *,
    stability_threshold: int,
    settled_nats: Float[Tensor, "B"],
    settled_steps: Int[Tensor, "B"],
) -> Bool[Tensor, "B"]:
    """Whether the text is settled.

    Args:
        stood: steps since it last changed.
        left: nats, the sum of the entropies of its positions that are free.
        stability_threshold: steps that it must have stood in any case.
        settled_nats: below which it is sure; 0 for never.
        settled_steps: for which it must have stood however unsure it is; 0 for never.
    """
    sure = (stood >= stability_threshold) & (left < settled_nats)
    return sure | ((settled_steps > 0) & (stood >= settled_steps))


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
