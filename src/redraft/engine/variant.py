"""What a request runs on where that is not the model alone: the same weights with an adapter beside them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from redraft.adapters.adapter import Adapter
from redraft.adapters.attach import check_bare, check_base, check_fits
from redraft.adapters.base import fingerprint
from redraft.adapters.beside import beside
from redraft.adapters.stacks import Stacks
from redraft.engine.prefix import PrefixCache
from redraft.model.model import DiffusionGemma


@dataclass(eq=False, frozen=True)
class Lane:
    """What is moved together.

    Attributes:
        model: with the adapters of all whose lane it is.
    """

    model: DiffusionGemma


@dataclass(eq=False)
class Variant:
    """A model with an adapter. Who has a request of it has it as long as that runs, whatever is unloaded meanwhile.

    Attributes:
        number: no other of the same model has it, or has had it.
        adapter: its factors.
        lane: whom it runs with.
        prefixes: what was encoded with it.
        place: of its factors, where several lie side by side; else 0.
        retired: whether it takes no new requests.
    """

    number: int
    adapter: Adapter
    lane: Lane
    prefixes: PrefixCache
    place: int = 0
    retired: bool = False

    @classmethod
    def of(cls, number: int, adapter: Adapter, model: DiffusionGemma, prefixes: PrefixCache) -> Variant:
        """One beside this model in a lane of its own, within the bound of these prefixes.

        Raises:
            CheckpointError, OptionError: the adapter does not fit, see `redraft.adapters.attach`.
        """
        return cls(number=number, adapter=adapter, lane=Lane(beside(model, adapter)), prefixes=prefixes.apart())

    @property
    def model(self) -> DiffusionGemma:
        """Shares its weights with the one without the adapter."""
        return self.lane.model

    @property
    def nbytes(self) -> int:
        """Of its factors."""
        return sum(parameter.nbytes for _, parameter in self.adapter.named_parameters())

    def retire(self) -> None:
        """Takes no new requests, and keeps nothing of those that are under way."""
        self.retired = True
        self.prefixes.close()


class SharedLane:
    """A lane for several adapters of a model, whose requests may share a forward."""

    def __init__(self, model: DiffusionGemma, places: int, rank: int) -> None:
        """Room for so many of at most this rank.

        Raises:
            OptionError: there is an adapter in the model.
        """
        check_bare(model)
        self._model = model
        self._stacks = Stacks(model, places, rank)
        self._lane = Lane(self._stacks.model)

    def variant(self, number: int, adapter: Adapter, prefixes: PrefixCache) -> Variant | None:
        """See `Variant.of`; None where there is no room for this one."""
        check_fits(adapter, self._model.config)
        check_base(adapter, fingerprint(self._model))
        if not self._stacks.takes(adapter):
            return None
        place = self._stacks.place(adapter)
        found = Variant(number, adapter, self._lane, prefixes.apart(), place)
        # Once nobody has it any more, the last request included.
        weakref.finalize(found, self._stacks.free, place)
        return found
