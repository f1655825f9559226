"""What a stream yields: drafts while a canvas settles, a commit when it has, the generation at the end."""

from __future__ import annotations

from dataclasses import dataclass

from redraft.core.draft import Draft
from redraft.core.reads import Readings
from redraft.core.results import Generation


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A canvas that will not change any more; in the causal mode, a token.

    Attributes:
        canvas: number of the canvas, from 0.
        token_ids: what the user gets of it; ends before end-of-turn and padding.
        text: what it adds to the raw reply, markers included; text that may still become a stop string is held back.
        shown: what it adds to the answer: text that can no longer become part of a call or a thought.
        denoising_steps: the steps it took.
        logprobs: nats, the causal mode's log-probability of each token; None where nobody asked.
        doubts: places in `token_ids` of what it would hardly have written.
    """

    canvas: int
    token_ids: tuple[int, ...]
    text: str
    denoising_steps: int
    shown: str = ""
    logprobs: tuple[float, ...] | None = None
    doubts: tuple[int, ...] = ()


Event = Draft | Commit | Generation
# What requests under way tell: a reply its events, reads one alone; and what they end with.
News = Event | Readings
Final = Generation | Readings
