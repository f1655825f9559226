"""What a step is made of: padded rows of clean tokens, and the canvases that are scored in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.model.images import Placed
from redraft.train.pictures import RowPicture

# R rows, T positions of a row, N canvases, L positions of a canvas


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded rows and canvases. They stay on the host; `loss_of` moves what the model needs.

    Attributes:
        tokens: clean sequences, right-padded.
        lengths: of each row.
        prefix: of each canvas, where in its row it begins: all before that it may see, as far as its conversation goes.
        canvas: the clean canvases, filled with end-of-sequence.
        scored: weight of each canvas position in the loss; 0 where it is not supervised (a truncated response has no
            real end, so its fill is not).
        causal: weight of each row position, whose *next* token is predicted.
        values: canvas positions inside argument values; logged apart.
        causal_values: like `values`, for `causal`.
        content: canvas positions that hold a reply's own tokens, its end among them, and no fill; logged apart.
        row: of each canvas, the row that it belongs to; None where canvas n is of row n.
        begins: of each row position, where in the row its conversation begins, for rows that hold several; None where
            each row is one.
        targets: the next token of each row position; None where that is the row's own. A call that a result follows in
            its row had an end there.
        pictures: of each row, those that stand in it; None where no row has any.
        placed: the same, seen.
    """

    tokens: Int[Tensor, "R T"]
    lengths: Int[Tensor, "R"]
    prefix: Int[Tensor, "N"]
    canvas: Int[Tensor, "N L"]
    scored: Float[Tensor, "N L"]
    causal: Float[Tensor, "R T"]
    values: Bool[Tensor, "N L"]
    causal_values: Bool[Tensor, "R T"]
    content: Bool[Tensor, "N L"] | None = None
    row: Int[Tensor, "N"] | None = None
    begins: Int[Tensor, "R T"] | None = None
    targets: Int[Tensor, "R T"] | None = None
    pictures: Sequence[Sequence[RowPicture]] | None = None
    placed: Sequence[Sequence[Placed]] | None = None
