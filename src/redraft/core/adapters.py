"""Adapters that are loaded beside a model, as everything above the engine sees them."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from redraft.core.checks import shown
from redraft.core.errors import OptionError

E = TypeVar("E", covariant=True)
# Names stand in requests, addresses and metrics.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,99}")


class Adapters(Mapping[str, E]):
    """Engines by the names of adapters. Each is an `Engine` whose requests run with its adapter; they may be under way
    together with those of others and of the model itself, and on a CPU company changes no bit of any of them.

    Any thread may ask, load and unload.
    """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Of all their factors."""

    @abstractmethod
    def load(self, name: str, directory: str | os.PathLike[str]) -> E:
        """Loads an adapter, ours or peft's, under a name of the caller's.

        Raises:
            OptionError: a name that is none or is taken, or no memory.
            ModelNotFoundError: there is no such directory.
            CheckpointError: it cannot be read, or is another base's or shape's.
        """

    @abstractmethod
    def unload(self, name: str) -> None:
        """Forgets an adapter, and what was encoded with it. Requests that were prepared before still end with it.

        Raises:
            ModelNotFoundError: there is none of this name.
        """


def adapter_name(name: object) -> str:
    """The name, where it can be one.

    Raises:
        OptionError: it cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(
            "an adapter's name has 1 to 100 letters, digits and any of ._:/@-, a letter or digit first; got "
            f"{shown(name)}"
        )
    return name
