"""What the samplers of a batch make of a step that ran operator by operator."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import replace

import torch
from torch import Tensor

from redraft.core.checks import shown
from redraft.core.errors import OptionError
from redraft.engine.canvas import NOISE_STEPS, CanvasState
from redraft.engine.sequence import Sequence
from redraft.kernels.head_stats import HeadStats
from redraft.sampler.samplers import NEVER, Move, Rule, Sampler, Seen, move, rule_of

# B canvases, L positions

# Of a canvas whose own sampler has the word.
_NONE = Rule(bound=-1.0, threshold=NEVER, floor=0, sticky=False, greedy=False)


def moves(
    group: Rows[Sequence], states: Rows[CanvasState], stats: HeadStats, vocab_size: int
) -> tuple[Move, Rows[bool]]:
    """([B, L] what becomes of each canvas, whether its sampler holds all of it and so ends it).

    Raises:
        OptionError: a request's own sampler has returned what is no next canvas.
    """
    held = [torch.zeros_like(row, dtype=torch.bool) if state.kept is None else state.kept
            for row, state in zip(stats.argmax, states, strict=True)]  # fmt: skip
    seen = Seen(
        tokens=torch.stack([state.tokens for state in states]),
        argmax=stats.argmax,
        sample=stats.sample,
        entropy=stats.entropy,
        best_log_prob=stats.best_log_prob,
        fresh=torch.stack([state.noise[state.taken % NOISE_STEPS] for state in states]),
        held=torch.stack(held),
    )
    rules = [rule_of(sequence.options) for sequence in group]
    numbers = [(rule or _NONE).numbers for rule in rules]
    moved = move(torch.tensor(numbers, device=stats.argmax.device).T, seen)
    for row, (sequence, state, rule) in enumerate(zip(group, states, rules, strict=True)):
        # What is no number is told by the loop, and no sampler's business.
        if rule is None and not sequence.finished and bool(torch.isfinite(stats.entropy[row]).all()):
            own = _own(sequence, state, Seen(**{name: values[row] for name, values in vars(seen).items()}), vocab_size)
            for name, values in vars(own).items():
                getattr(moved, name)[row] = values
    ends = [rule is None or rule.sticky for rule in rules]
    full = moved.held.all(-1).tolist() if any(ends) else [False] * len(ends)
    return moved, [end and whole for end, whole in zip(ends, full, strict=True)]


def _own(sequence: Sequence, state: CanvasState, seen: Seen, vocab_size: int) -> Move:
    """What a request's own sampler makes of its canvas; what is held stays as it is."""
    options, sampler = sequence.options, sequence.options.sampler
    assert not isinstance(sampler, str)
    called: Sampler = sampler
    if options.temperature == 0 and options.mode == "diffusion":
        seen = replace(seen, sample=seen.argmax)
    # A sampler may write into what it gets, and `held` is the canvas's own.
    given = Seen(**{name: values.clone() for name, values in vars(seen).items()})
    found = called(given, state.step, options.max_denoising_steps)
    _check(found, seen, vocab_size)
    return Move(
        tokens=torch.where(seen.held, seen.tokens, found.tokens),
        accepted=seen.held | found.accepted,
        held=seen.held | found.held,
    )


def _check(found: object, seen: Seen, vocab_size: int) -> None:
    if not isinstance(found, Move):
        raise OptionError(f"sampler must return a Move, got {shown(found)}")
    for name, dtype in (("tokens", torch.int64), ("accepted", torch.bool), ("held", torch.bool)):
        values = getattr(found, name)
        if not isinstance(values, Tensor) or values.shape != seen.tokens.shape or values.dtype != dtype:
            length = len(seen.tokens)
            raise OptionError(f"sampler must return {name} of {length} positions in {dtype}, got {shown(values)}")
    if bool(((found.tokens < 0) | (found.tokens >= vocab_size)).any()):
        raise OptionError(f"sampler must return token ids from 0 to {vocab_size - 1}, got {shown(found.tokens)}")
