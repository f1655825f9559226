"""The causal mode's distribution of a next token, under temperature, nucleus and constraint."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from redraft.core.automaton import DEAD
from redraft.engine.instead import calls, say_instead
from redraft.engine.sequence import Sequence
from redraft.kernels.constrained import NothingLeftError
from redraft.kernels.head import inverse_cdf
from redraft.sampler import noise
from redraft.sampler.noise import Stream
from redraft.sampler.nucleus import nucleus


def choose(
    sequence: Sequence, logits: Float[Tensor, "V"], before: list[int] | None = None, state: int | None = None
) -> tuple[int, float] | None:
    """The next token that the causal mode writes, and its log-probability, which is 0 where nobody wants it.

    A token's draw belongs to its place in the reply: canvas 0, step = tokens before it, position 0. What it is decided
    by, a draft that is verified shares with the causal mode: the same draw means the same token in both.

    Args:
        sequence: the request.
        logits: of that token.
        before: tokens behind the committed ones that stand before it.
        state: of the constraint's automaton behind those; None finds it.

    Returns:
        None where the reply is held to something else from here on, for which `before` must be committed first.

    Raises:
        NothingLeftError: no token is left.
        OptionError: a narrower constraint needs more than may be compiled.
    """
    before = before or []
    place, greedy = sequence.committed + len(before), sequence.options.temperature == 0
    while True:
        constraint = sequence.constraint
        if constraint is not None and state is None:
            state = constraint.automaton.advance(sequence.constraint_state, before)
        allowed = allowed_logits(sequence, logits, state or 0, sequence.room(len(before)))
        if greedy:
            token = int(allowed.argmax())
        else:
            at = [torch.tensor([value], device=logits.device) for value in (sequence.seed, 0, place)]
            uniform = noise.uniform(at[0], Stream.SAMPLE, at[1], at[2], 1)[0]
            token = int(inverse_cdf(causal_probabilities(sequence, allowed)[None], uniform))
        if calls(sequence, [token]):
            if before:
                return None
            say_instead(sequence)
        elif not sequence.narrow([*before, token]):
            wanted = sequence.options.logprobs
            return token, float(torch.log_softmax(allowed, dim=-1)[token]) if wanted else 0.0
        state = None


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
