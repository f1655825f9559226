"""What the head finds at each position, in whatever form it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from redraft.kernels.class_scores import ClassScores

# Of a pass on a GPU, which keeps their logits in 16 bits: 537 MB at the released vocabulary.
MAX_ROWS = 1024

# L positions, D hidden


@dataclass(frozen=True, kw_only=True)
class HeadStats:
    """What the sampler and the next step need of the temperature-scaled distribution at each position.

    Attributes:
        argmax: the likeliest token.
        sample: the token that the position's uniform draw means.
        entropy: nats.
        log_prob: nats, of `sample`.
        best_log_prob: nats, of `argmax`.
        soft_embedding: expected embedding, scaled; what self-conditioning consumes.
        dropped_mass: probability that is missing in `soft_embedding`; at most the mass bound.
        classes: of each canvas whose automaton was given, what its positions say of its classes.
    """

    argmax: Int[Tensor, "... L"]
    sample: Int[Tensor, "... L"]
    entropy: Float[Tensor, "... L"]
    log_prob: Float[Tensor, "... L"]
    best_log_prob: Float[Tensor, "... L"]
    soft_embedding: Float[Tensor, "... L D"]
    dropped_mass: Float[Tensor, "... L"]
    classes: tuple[ClassScores | None, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[HeadStats]) -> HeadStats:
        """Those of several passes, one behind the other."""
        return cls(
            argmax=torch.cat([part.argmax for part in parts]),
            sample=torch.cat([part.sample for part in parts]),
            entropy=torch.cat([part.entropy for part in parts]),
            log_prob=torch.cat([part.log_prob for part in parts]),
            best_log_prob=torch.cat([part.best_log_prob for part in parts]),
            soft_embedding=torch.cat([part.soft_embedding for part in parts]),
            dropped_mass=torch.cat([part.dropped_mass for part in parts]),
            classes=tuple(scores for part in parts for scores in part.classes),
        )

    def by_canvas(self, canvases: int, length: int) -> HeadStats:
        """Those of one pass over all positions of canvases of one length, canvas by canvas."""
        shape = (canvases, length)
        return HeadStats(
            argmax=self.argmax.view(shape),
            sample=self.sample.view(shape),
            entropy=self.entropy.view(shape),
            log_prob=self.log_prob.view(shape),
            best_log_prob=self.best_log_prob.view(shape),
            soft_embedding=self.soft_embedding.view(*shape, -1),
            dropped_mass=self.dropped_mass.view(shape),
            classes=self.classes or (None,) * canvases,
        )
