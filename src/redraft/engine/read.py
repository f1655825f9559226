"""A list of reads under way: what has been answered, and where the next one stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from redraft.core.errors import ContextLengthError, PromptError
from redraft.core.reads import NOISE, CanvasRead, CausalRead, Read, Reading, Readings
from redraft.engine.given import checked_ids
from redraft.engine.prompt_images import PromptImage, identity
from redraft.engine.sequence import Costs
from redraft.engine.stops import ENCODE_CHUNK
from redraft.engine.variant import Variant
from redraft.model.cache import SequenceCache
from redraft.model.config import ModelConfig

# Continuations that are encoded side by side.
FORKS = 16


@dataclass
class OneRead:
    """A read that has begun, as `encode_pending` moves it.

    Attributes:
        read: what is wanted.
        cache: what is encoded of its prompt.
        pending: what is not.
        stops: where the prompt's pieces end.
        costs: counters of its encoding.
        last_hidden: [1, 1, D] behind the prompt; None before.
        positions, forwards: that were run for it.
        began: the clock.
    """

    read: Read
    cache: SequenceCache
    pending: list[int]
    stops: list[int]
    costs: Costs = field(default_factory=Costs)
    last_hidden: Tensor | None = None
    positions: int = 0
    forwards: int = 0
    images: tuple[PromptImage, ...] = ()
    began: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class ReadList:
    """Reads that were asked for together. What the loop moves, as a `Sequence` is.

    Attributes:
        reads: what is wanted, in order.
        readings: of those that are done, by their numbers.
        open: those that have begun, by their numbers.
        finish: how it ended; None before.
        failed: why it failed.
        variant: what they run on; None is the model alone.
    """

    reads: tuple[Read, ...]
    readings: dict[int, Reading] = field(default_factory=dict)
    open: dict[int, OneRead] = field(default_factory=dict)
    finish: str | None = None
    failed: str | None = None
    drafts: bool = False
    variant: Variant | None = None

    @property
    def prompt(self) -> list[int]:
        """Of the first, by which its like are found."""
        return list(self.reads[0].prompt) if self.reads else []

    @property
    def place(self) -> int:
        """Of the adapter's factors, see `Variant`."""
        return 0 if self.variant is None else self.variant.place

    @property
    def identity(self) -> list[int]:
        """As of a `Sequence`."""
        return identity_of(self.reads[0]) if self.reads else []

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.finish is not None

    def fail(self, reason: str) -> None:
        """Ends it with an error."""
        self.failed, self.finish = reason, "error"
        self.open.clear()

    def cancel(self) -> None:
        """Ends it, unless it has."""
        self.finish = self.finish or "cancelled"
        self.open.clear()

    def result(self) -> Readings:
        """What whoever asked gets."""
        done = tuple(self.readings[number] for number in sorted(self.readings))
        return Readings(readings=done, finish_reason=self.finish or "cancelled", error=self.failed)


def identity_of(read: Read) -> list[int]:
    """What tells a read's prompt from others: its ids, and which pictures stand in it."""
    return identity(list(read.prompt), read.images)


def checked(read: Read, config: ModelConfig, max_context: int) -> Read:
    """The read, if it can be done.

    Raises:
        PromptError: it cannot: ids that are none, a place that is none, a canvas that the model has not.
    """
    checked_ids(read.prompt, config.vocab_size)
    if not read.prompt:
        raise PromptError("a read needs a prompt")
    if not all(0 < length <= len(read.prompt) for length in read.kept) or list(read.kept) != sorted(set(read.kept)):
        raise PromptError(f"kept must be ascending lengths of the prompt, got {list(read.kept)}")
    if cut := [end for end in read.kept if any(image.start < end < image.end for image in read.images)]:
        raise PromptError(f"kept must not end inside a picture, got {cut}")
    if isinstance(read, CausalRead):
        checked_ids(read.token_ids, config.vocab_size)
        for continuation in read.continuations:
            checked_ids(continuation, config.vocab_size)
            if not continuation:
                raise PromptError("a continuation is empty")
        _check_endings(read, config)
        behind = max((len(continuation) for continuation in read.continuations), default=1)
    else:
        _check_canvas(read, config)
        behind = len(read.canvas)
    if len(read.prompt) + behind > max_context:
        raise ContextLengthError(len(read.prompt), max_context)
    return read


def _check_endings(read: CausalRead, config: ModelConfig) -> None:
    if read.endings is None:
        return
    if [len(places) for places in read.endings] != [len(continuation) for continuation in read.continuations]:
        raise PromptError("endings must be as many as the places of each continuation")
    for places in read.endings:
        for tokens in places:
            checked_ids(tokens, config.vocab_size)


def _check_canvas(read: CanvasRead, config: ModelConfig) -> None:
    L = len(read.canvas)
    if not config.has_canvas:
        raise PromptError("this model has no canvas: read it by its causal mode")
    if not 1 <= L <= config.canvas_length:
        raise PromptError(f"a canvas has 1 to {config.canvas_length} positions, got {L}")
    checked_ids([token for token in read.canvas if token != NOISE], config.vocab_size)
    for slot in read.slots:
        if not 0 <= slot.position < L:
            raise PromptError(f"slot {slot.position} lies outside a canvas of {L} positions")
        checked_ids(slot.token_ids, config.vocab_size)
    if read.texts is not None and len(read.texts.automaton.class_of) != config.vocab_size:
        raise PromptError("the options' automaton is of another vocabulary")
    if not read.draws or min(read.draws) < 0 or read.steps < 1:
        raise PromptError("a read needs a draw and a step at least")


def pieces(length: int, kept: tuple[int, ...], runs: Sequence[tuple[int, int]] = ()) -> list[int]:
    """Where a prompt of this length is encoded in pieces: behind what is kept, and after `ENCODE_CHUNK` at most, but
    not inside a picture. Where one would end there it ends before, or, where the picture began it, behind.

    They follow from the read alone, so that whoever finds a beginning encoded goes on as if it had not been.

    Args:
        length: of the prompt.
        kept: lengths of it.
        runs: (first, behind the last) of its pictures.
    """
    found: list[int] = []
    for end in (*kept, length):
        begun = found[-1] if found else 0
        while end - begun > ENCODE_CHUNK:
            stop = begun + ENCODE_CHUNK
            first, behind = next((run for run in runs if run[0] < stop < run[1]), (stop, stop))
            begun = first if first > begun else behind
            if begun < end:
                found.append(begun)
        if end > begun:
            found.append(end)
    return found


def peak_bytes(reads: tuple[Read, ...], empty: SequenceCache) -> int:
    """What keys and values of the largest of them may come to take."""
    most = 0
    for read in reads:
        width = len(read.canvas) if isinstance(read, CanvasRead) else max(map(len, read.continuations), default=1)
        forks = 1 if isinstance(read, CanvasRead) else 1 + min(len(read.continuations), FORKS)
        most = max(most, forks * empty.bytes_at(len(read.prompt), width))
    return most
