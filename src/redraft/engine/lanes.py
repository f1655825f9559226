"""Requests of the model and of the adapters beside it, side by side: those of a lane are moved by one loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

from redraft.engine.loop import CanvasLoop, Emitted, UnderWay
from redraft.engine.variant import Lane
from redraft.model.model import DiffusionGemma


class Lanes:
    """The loops of lanes; one goes with the last request of its lane."""

    def __init__(self, make: Callable[[DiffusionGemma], CanvasLoop]) -> None:
        """`make` makes the loop of a model."""
        self._make = make
        self._loops: WeakKeyDictionary[Lane, CanvasLoop] = WeakKeyDictionary()

    def tick(self, alone: CanvasLoop, sequences: Sequence[UnderWay], *, drafts: bool = True) -> Iterator[Emitted]:
        """A step of each sequence, those of one lane together; `alone` moves those of the model without adapters."""
        by_lane: dict[Lane | None, list[UnderWay]] = {}
        for sequence in sequences:
            by_lane.setdefault(sequence.variant and sequence.variant.lane, []).append(sequence)
        for lane, together in by_lane.items():
            loop = alone if lane is None else self._loops.get(lane)
            if loop is None:
                assert lane is not None
                # It must not hold the lane, which holds it.
                loop = self._loops[lane] = self._make(lane.model)
            yield from loop.tick(together, drafts=drafts)
