"""The adapters beside a model: loaded and unloaded by name, while requests run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from redraft.adapters.adapter import Adapter
from redraft.adapters.read import read_adapter
from redraft.core.adapters import Adapters, adapter_name
from redraft.core.errors import ModelNotFoundError, OptionError
from redraft.engine.prefix import PrefixCache
from redraft.engine.variant import SharedLane, Variant
from redraft.model.model import DiffusionGemma

E = TypeVar("E")
# Adapters that may share a forward, and up to which rank; in the released widths they take 0.3 GB in bfloat16.
PLACES, RANK = 8, 16


class LoadedAdapters(Adapters[E]):
    """See `core.adapters.Adapters`."""

    def __init__(
        self,
        model: DiffusionGemma,
        prefixes: Callable[[], PrefixCache],
        make: Callable[[str, Path, Variant], E],
        room: Callable[[], int],
        *,
        together: bool,
    ) -> None:
        """`prefixes` are those of the model, `make` makes the engine of a variant, `room` says how many bytes the
        factors of one more may take. `together`: whether requests of several may share a forward."""
        self._model, self._prefixes, self._make, self._room = model, prefixes, make, room
        self._engines: dict[str, tuple[E, Variant]] = {}
        self._made, self._together = 0, together
        self._lane: SharedLane | None = None
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> E:
        return self._engines[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._engines))

    def __len__(self) -> int:
        return len(self._engines)

    def __repr__(self) -> str:
        return f"<adapters: {', '.join(self) or 'none'}>"

    @property
    def nbytes(self) -> int:
        return sum(variant.nbytes for _, variant in list(self._engines.values()))

    def load(self, name: str, directory: str | os.PathLike[str]) -> E:
        directory = Path(directory)
        # One at a time: whoever gives a name twice hears of it, and memory is counted once.
        with self._lock:
            if adapter_name(name) in self._engines:
                raise OptionError(f"there is an adapter {name!r} already: unload it first, or give another name")
            adapter = read_adapter(directory, self._model.config)
            self._made += 1
            variant = self._variant(adapter)
            if variant.nbytes > (room := self._room()):
                raise OptionError(
                    f"adapter {name!r} takes {variant.nbytes / 1e6:.1f} MB, and {max(0, room) / 1e6:.1f} MB are free: "
                    "unload others"
                )
            engine = self._make(name, directory, variant)
            self._engines[name] = (engine, variant)
        return engine

    def _variant(self, adapter: Adapter) -> Variant:
        found = None
        if self._together:
            self._lane = self._lane or SharedLane(self._model, PLACES, RANK)
            found = self._lane.variant(self._made, adapter, self._prefixes())
        return found or Variant.of(self._made, adapter, self._model, self._prefixes())

    def unload(self, name: str) -> None:
        with self._lock:
            if name not in self._engines:
                known = ", ".join(map(repr, self._engines)) or "none"
                raise ModelNotFoundError(f"there is no adapter {name!r} here; there is {known}")
            _, variant = self._engines.pop(name)
        variant.retire()
