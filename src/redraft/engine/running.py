"""Requests under way together: they join and leave between steps, and one that fails ends alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from redraft.core.engine import Prepared
from redraft.core.events import Final, News
from redraft.core.options import GenerationOptions
from redraft.core.reads import Readings
from redraft.core.results import Generation, GenerationStats
from redraft.engine.loop import Emitted, UnderWay
from redraft.engine.read import ReadList
from redraft.engine.sequence import Sequence

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PreparedRequest:
    """A request that is checked and laid out. It runs once."""

    sequence: Sequence

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.sequence.prompt)

    @property
    def memory_bytes(self) -> int:
        """What its keys and values may come to take, with the pictures that wait beside them."""
        sequence = self.sequence
        pictures = sum(image.pixels.nbytes for image in sequence.images)
        return pictures + sequence.cache.bytes_at(len(sequence.prompt) + sequence.budget, sequence.canvas_length)

    @property
    def options(self) -> GenerationOptions:
        """With every default filled in."""
        return self.sequence.options

    def lost(self, finish_reason: Literal["cancelled", "error"], error: str | None = None) -> Generation:
        """What it ends with where the engine has not ended it."""
        nothing = GenerationStats(
            prompt_tokens=self.prompt_tokens, cached_tokens=0, generated_tokens=0, canvases=0, denoising_steps=0,
            encode_passes=0, tokens_per_forward=0.0, time_to_first_canvas_s=0.0, encode_s=0.0, denoise_s=0.0,
            total_s=0.0, tokens_per_second=0.0,
        )  # fmt: skip
        return Generation(
            text="", reasoning=None, tool_calls=(), token_ids=(), finish_reason=finish_reason,
            seed=self.options.seed or 0, stats=nothing, error=error,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class PreparedReads:
    """Reads that are checked. They run once."""

    sequence: ReadList
    memory_bytes: int

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts."""
        return sum(len(read.prompt) for read in self.sequence.reads)

    def lost(self, finish_reason: Literal["cancelled", "error"], error: str | None = None) -> Readings:
        """What they end with where the engine has not ended them."""
        return Readings(readings=(), finish_reason=finish_reason, error=error)


class RunningRequests:
    """See `core.engine.Running`."""

    def __init__(
        self,
        tick: Callable[[list[UnderWay]], Iterable[Emitted]],
        begin: Callable[[PreparedRequest | PreparedReads], UnderWay],
        result: Callable[[UnderWay], Final],
    ) -> None:
        self._tick, self._begin, self._result = tick, begin, result
        self._requests: dict[int, PreparedRequest | PreparedReads] = {}
        self.moved = 0

    def add(self, prepared: Prepared, *, drafts: bool = True) -> None:
        """The request takes part from the next step on; its drafts come only where someone looks at them."""
        assert isinstance(prepared, PreparedRequest | PreparedReads)
        prepared.sequence.drafts = drafts
        self._begin(prepared)
        self._requests[id(prepared.sequence)] = prepared

    def clear(self) -> None:
        """Gives up every request, without a word of it."""
        self._requests.clear()

    def cancel(self, prepared: Prepared) -> None:
        """The request takes part no more; its last event comes with the next step."""
        assert isinstance(prepared, PreparedRequest | PreparedReads)
        prepared.sequence.cancel()

    def step(self) -> list[tuple[Prepared, News]]:
        """One step of each request."""
        sequences = [prepared.sequence for prepared in self._requests.values()]
        events: list[tuple[Prepared, News]] = []
        for sequence, event in self._moved(sequences):
            events.append((self._requests[id(sequence)], event))
        for prepared in [prepared for prepared in self._requests.values() if prepared.sequence.finished]:
            del self._requests[id(prepared.sequence)]
            events.append((prepared, self._result(prepared.sequence)))
        self.moved += 1
        return events

    def _moved(self, sequences: list[UnderWay]) -> list[Emitted]:
        emitted: list[Emitted] = []
        try:
            emitted.extend(self._tick(sequences))
        except Exception as error:
            if len(sequences) == 1:
                _log.exception("a request failed")
                sequences[0].fail(f"{type(error).__name__}: {error}")
                return emitted
            # What has happened has; the others go on, one by one, until the one that fails is found.
            for sequence in sequences:
                emitted += self._moved([sequence])
        return emitted
