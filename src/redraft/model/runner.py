"""What may stand for the backbone of a model where its weights lie."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

from redraft.model.attention import Attend


class Runner(Protocol):
    """The backbone's arithmetic in another form, such as a GPU's joint products; the modules remain the definition."""

    def __call__(
        self,
        token_ids: Int[Tensor, "B L"],
        lengths: Int[Tensor, "B"],
        attend: Attend,
        soft: Float[Tensor, "B L D"] | None = None,
        *,
        causal: bool = False,
    ) -> Float[Tensor, "B L D"]:
        """Hidden states after the final norm, of a canvas, or if causal of what is encoded; see `DiffusionGemma`."""
        ...

    def without_branches(self) -> bool:
        """From here on everything of a layer is told to one stream; False if it was already."""
        ...
