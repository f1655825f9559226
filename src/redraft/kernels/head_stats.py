"""What the head finds at each position, in whatever form it runs."""

from __future__ import annotations

from dataclasses import dataclass

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
        soft_embedding: expected embedding, scaled; what self-conditioning consumes.
        dropped_mass: probability that is missing in `soft_embedding`; at most the mass bound.
        classes: of each canvas whose automaton was given, what its positions say of its classes.
    """

    argmax: Int[Tensor, "... L"]
    sample: Int[Tensor, "... L"]
    entropy: Float[Tensor, "... L"]
    log_prob: Float[Tensor, "... L"]
    soft_embedding: Float[Tensor, "... L D"]
    dropped_mass: Float[Tensor, "... L"]
    classes: tuple[ClassScores | None, ...] = ()
