"""An automaton's classes scored by themselves, behind a head that does not: on a GPU, or as somebody narrows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from redraft.core.automaton import Parts
from redraft.kernels import watched
from redraft.kernels.class_scores import ClassScores
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.transfer import moved

# N rows, V vocabulary, D hidden, X explicit tokens, G broad classes


class Walk:
    """The scores of one automaton's classes by themselves, in torch operations on any device, at fixed addresses.

    `run` asks the device nothing, so that it can be captured. Where classes are broad it walks the vocabulary, a tile
    of logits at a time; else it makes the explicit tokens' logits alone.

    Attributes:
        hidden: of each position; what a run reads.
    """

    def __init__(
        self,
        embedding: Float[Tensor, "V D"] | Int8Matrix,
        *,
        cap: float,
        parts: Parts,
        hidden: Float[Tensor, "N D"],
    ) -> None:
        """Raises ValueError where the automaton has another vocabulary.

        Args:
            embedding: of the vocabulary.
            cap: of the logits.
            parts: of the automaton.
            hidden: becomes the attribute.
        """
        self.parts, self.hidden = parts, hidden
        self._embedding, self._cap = embedding, cap
        weight = embedding.data if isinstance(embedding, Int8Matrix) else embedding
        self._vocabulary, device = len(weight), hidden.device
        columns = min(watched.COLUMNS, -(-self._vocabulary // watched.RUN) * watched.RUN)
        self._watch = watched.Watch(parts, len(hidden), self._vocabulary, columns, device)
        self._ids = torch.from_numpy(parts.ids).to(device)
        self._factor: Float[Tensor, ""] = torch.full((), cap, dtype=torch.float32, device=device)

    def heat(self, temperature: float) -> None:
        """Of all positions in the runs that follow; 0 leaves their logits unscaled."""
        self._factor.fill_(self._cap * (1.0 / temperature if temperature else 1.0))

    @torch.no_grad()
    def run(self) -> None:
        """Makes the statistics anew."""
        watch = self._watch
        watch.clear()
        if not len(self.parts.broad):
            weight, scale = self._rows(self._ids)
            watch.scores.copy_(self._scaled(F.linear(self.hidden, weight), scale))
            return
        for first in range(0, self._vocabulary, watch.columns):
            weight, scale = self._rows(slice(first, first + watch.columns))
            watch.see(self._scaled(F.linear(self.hidden, weight), scale), first)

    def statistics(self) -> tuple[Tensor, ...]:
        """Of the last run; see `Watch`."""
        return self._watch.statistics()

    def told(
        self, explicit: Float[Tensor, "N X"], broad: Float[Tensor, "3 N G"], token: Int[Tensor, "N G"]
    ) -> ClassScores:
        """The scores of the last run, of its statistics on the host. Draws inside a class hold until the next run."""
        return self._watch.told(explicit, broad, token, self._columns)

    def result(self) -> ClassScores:
        """The scores of the last run."""
        return self.told(*moved(self.statistics(), torch.device("cpu")))

    def _scaled(self, product: Tensor, scale: Tensor | None) -> Tensor:
        x = product.float()
        x = x / self._cap if scale is None else x * (scale / self._cap)
        return torch.tanh(x) * self._factor

    @torch.no_grad()
    def _columns(self, rows: Tensor, columns: Tensor) -> Tensor:
        columns = columns.clamp(max=self._vocabulary - 1)
        found: list[Tensor] = []
        for part, of in zip(columns.split(32), rows.split(32), strict=True):
            weight, scale = self._rows(part)
            found.append(self._scaled(torch.bmm(weight, self.hidden[of][:, :, None])[:, :, 0], scale))
        return torch.cat(found)

    def _rows(self, index: Tensor | slice) -> tuple[Tensor, Tensor | None]:
        """Rows of the embedding as they are multiplied, and what scales the products: integers of 8 bits are exact in
        whatever dtype, and scaling them before would be a pass over all of them."""
        embedding = self._embedding
        if isinstance(embedding, Int8Matrix):
            return embedding.data[index].to(self.hidden.dtype), embedding.scale[index]
        return embedding[index], None


def class_scores(
    hidden: Float[Tensor, "N D"],
    embedding: Float[Tensor, "V D"] | Int8Matrix,
    *,
    cap: float,
    temperature: float,
    parts: Parts,
) -> ClassScores:
    """The scores by themselves, once; see `Walk`.

    What leaves the device, in one copy: the explicit scores, four numbers a broad class and position. A token for each
    draw inside a broad class follows.

    Args:
        hidden: of each position.
        embedding: of the vocabulary.
        cap: of the logits.
        temperature: of all positions; 0 leaves them unscaled.
        parts: of the automaton.
    """
    walk = Walk(embedding, cap=cap, parts=parts, hidden=hidden)
    walk.heat(temperature)
    walk.run()
    return walk.result()
