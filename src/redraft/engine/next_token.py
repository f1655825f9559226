"""The causal mode's distribution of a next token, under temperature, nucleus and constraint."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from redraft.core.automaton import DEAD
from redraft.engine.sequence import Sequence
from redraft.kernels.constrained import NothingLeftError
from redraft.sampler.nucleus import nucleus


def causal_probabilities(sequence: Sequence, logits: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
    """What the next token is drawn from; at temperature 0, all of it on the argmax."""
    options = sequence.options
    temperature = 1.0 if options.temperature is None else options.temperature
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(0, logits.argmax()[None], 1.0)
    return nucleus(torch.softmax(logits / temperature, dim=-1)[None], options.top_p)[0]


def allowed_logits(sequence: Sequence, logits: Float[Tensor, "V"], state: int, remaining: int) -> Float[Tensor, "V"]:
    """Logits with -inf at tokens that the constraint refuses, or from which its end is too far.

    Args:
        sequence: the request.
        logits: of the next token.
        state: of the constraint's automaton.
        remaining: tokens that may still be written, the next one included.

    Raises:
        NothingLeftError: no token is left.
    """
    if sequence.constraint is None:
        return logits
    automaton = sequence.constraint.automaton
    following = np.append(automaton.following(state), DEAD)
    fits = (following != DEAD) & (automaton.shortest[following] <= remaining - 1)
    if not fits.any():
        raise NothingLeftError("nothing that keeps every rule can follow within what is left of the reply")
    allowed = torch.from_numpy(fits[automaton.class_of]).to(logits.device)
    return logits.masked_fill(~allowed, -torch.inf)
