"""What a request runs on where that is not the model alone: the same weights with an adapter beside them."""

from __future__ import annotations

from dataclasses import dataclass

from redraft.adapters.adapter import Adapter
from redraft.adapters.beside import beside
from redraft.engine.prefix import PrefixCache
from redraft.model.model import DiffusionGemma


@dataclass(eq=False)
class Variant:
    """A model with an adapter. Who has a request of it has it as long as that runs, whatever is unloaded meanwhile.

    Attributes:
        number: no other of the same model has it, or has had it.
        adapter: its factors.
        model: shares its weights with the one without the adapter.
        prefixes: what was encoded with it.
        retired: whether it takes no new requests.
    """

    number: int
    adapter: Adapter
    model: DiffusionGemma
    prefixes: PrefixCache
    retired: bool = False

    @classmethod
    def of(cls, number: int, adapter: Adapter, model: DiffusionGemma, prefixes: PrefixCache) -> Variant:
        """One beside this model, within the bound of these prefixes.

        Raises:
            CheckpointError, OptionError: the adapter does not fit, see `redraft.adapters.attach`.
        """
        return cls(number=number, adapter=adapter, model=beside(model, adapter), prefixes=prefixes.apart())

    @property
    def nbytes(self) -> int:
        """Of its factors."""
        return sum(parameter.nbytes for _, parameter in self.adapter.named_parameters())

    def retire(self) -> None:
        """Takes no new requests, and keeps nothing of those that are under way."""
        self.retired = True
        self.prefixes.close()
