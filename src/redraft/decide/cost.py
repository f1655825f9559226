"""Which reader is cheaper: the rule behind `reader="auto"`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def cheaper(width: int, draws: int, continuations: Sequence[Sequence[int]]) -> Literal["canvas", "causal"]:
    """The reader that runs fewer positions through the model for a question by itself.

    Both encode the prompt, but for what is kept of it, so that what stands behind it decides:

    - the canvas runs its width once a draw (and a denoising step);
    - the causal mode runs each continuation but for its last token, which nothing is asked behind, and but for its
      first, which the prompt's own end already tells. A label costs nothing.

    So a question by label is read by the causal mode, options by their own text mostly by the canvas, and where both
    cost the same, by the canvas. Several questions on one canvas (`joint`) are always the canvas's: the causal mode
    would encode a prompt for each. A model without a canvas is always read by the causal mode.

    Args:
        width: positions of the canvas.
        draws: canvases, times denoising steps.
        continuations: options as tokens; none of a question by label.
    """
    causal = sum(max(len(continuation) - 1, 0) for continuation in continuations)
    return "causal" if causal < width * draws else "canvas"
