"""Requests of the model and of the adapters beside it, side by side: each kind has a loop of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

from redraft.engine.loop import CanvasLoop, Emitted, UnderWay
from redraft.engine.prefix import PrefixCache
from redraft.engine.variant import Variant
from redraft.model.model import DiffusionGemma

MakeLoop = Callable[[DiffusionGemma, Callable[[], PrefixCache]], CanvasLoop]


class Lanes:
    """Loops of variants; one goes with the last request of its variant."""

    def __init__(self, make: MakeLoop) -> None:
        """`make` makes the loop of a model with its prefix cache."""
        self._make = make
        self._loops: WeakKeyDictionary[Variant, CanvasLoop] = WeakKeyDictionary()

    def tick(self, alone: CanvasLoop, sequences: Sequence[UnderWay], *, drafts: bool = True) -> Iterator[Emitted]:
        """A step of each sequence, those of one variant together; `alone` moves those of the model without any."""
        for variant in dict.fromkeys(sequence.variant for sequence in sequences):
            loop = alone if variant is None else self._loop_of(variant)
            yield from loop.tick([sequence for sequence in sequences if sequence.variant is variant], drafts=drafts)

    def _loop_of(self, variant: Variant) -> CanvasLoop:
        loop = self._loops.get(variant)
        if loop is None:
            # The loop must not hold the variant, which holds it.
            prefixes = variant.prefixes
            loop = self._loops[variant] = self._make(variant.model, lambda: prefixes)
        return loop
