"""What the three modes take a token: a canvas's steps, one forward, or a draft of one step and what verifies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Tokens of a draft that are kept: mini keeps 8 (docs/log.md), others are to be measured.
KEPT = (4, 8, 16)


def verified_rates(batch: int, canvas: int, draft_s: float) -> dict[str, float]:
    """Tokens a second by what is kept of a draft: that, and the token that is put behind it.

    Args:
        batch: sequences at a time.
        canvas: positions of a canvas.
        draft_s: seconds of a draft and of its verification.
    """
    return {str(kept): batch * (kept + 1) / draft_s for kept in KEPT if kept < canvas}


def kept_to_pay(draft_s: float, token_s: float) -> float:
    """Tokens of a draft that must be kept for it to bring more a second than the causal mode, token by token.

    Args:
        draft_s: seconds of a draft and of its verification.
        token_s: seconds of a causal token.
    """
    return max(0.0, draft_s / token_s - 1)


def forwards_per_token(steps: Sequence[int], canvas: int) -> dict[str, Any]:
    """Of each mode: by the steps of a whole canvas, and by what is kept of a draft."""
    return {
        "diffusion": {str(number): number / canvas for number in steps},
        "autoregressive": 1.0,
        "verified": {str(kept): 2 / (kept + 1) for kept in KEPT if kept < canvas},
    }
