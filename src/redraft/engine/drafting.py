"""Where the drafts of a request stand, in the verified mode: see `drafted`, which makes them, and `verified`."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from redraft.model.cache import SetAside


@dataclass
class Drafting:
    """Where the drafts of a request stand.

    Attributes:
        start: positions that are encoded before its block.
        committed: tokens of the reply before it.
        head: the next token, which the causal mode has chosen already; None until it has to.
        log_prob: of that, where it is wanted.
        soft: [L, D] what the last draft of this block thought.
        kept: tokens of the latest drafts that were kept, their heads included.
        aside: keys and values of what is committed of the block, while a canvas lies in their place.
    """

    start: int
    committed: int
    head: int | None = None
    log_prob: float = 0.0
    soft: Tensor | None = None
    kept: list[int] = field(default_factory=list)
    aside: SetAside | None = None
