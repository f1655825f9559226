"""Handing a canvas that does not settle over to the causal mode, which writes the rest of its reply."""

from __future__ import annotations

from dataclasses import replace

from redraft.engine.canvas import CanvasState
from redraft.engine.sequence import Sequence


def is_due(sequence: Sequence, state: CanvasState) -> bool:
    """Whether a canvas that has not settled has had its steps.

    One in which something is pinned keeps it to its end; one that might yet be told to say something in a call's place
    cannot be read token by token.
    """
    wanted = sequence.options.handover_steps
    if not wanted or state.step < wanted or state.settled or sequence.options.mode != "diffusion":
        return False
    held = state.pinned is not None or any(token >= 0 for token in sequence.pinned)
    return not held and not (sequence.instead and sequence.wanted_calls)


def hand_over(sequence: Sequence) -> None:
    """Makes a request one of the verified mode, as warm as the schedule's end; its first draft is the canvas."""
    options = sequence.options
    warmth = 0.0 if options.temperature == 0 else options.schedule[1]
    # A nucleus has no effect where a canvas is asked for, and has none here.
    changed = {"mode": "verified", "temperature": warmth, "top_p": 1.0, "max_denoising_steps": 1}
    sequence.options = replace(options, **changed, initial_canvas=None, pinned=())
    sequence.initial = sequence.pinned = []
    sequence.costs.handovers += 1
