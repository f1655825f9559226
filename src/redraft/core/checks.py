"""What a caller may give: each check returns the value as the rest reads it, or raises one line that names it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence, Set
from numbers import Real
from typing import Any

from redraft.core.errors import OptionError


def shown(value: object) -> str:
    """A value as an error names it: as Python writes it, and no longer than a line has room for."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        # Whoever made a mistake must hear of that one, not of another.
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def integer(value: object) -> int | None:
    """The value as an integer, whoever's it is, such as numpy's; None where it is none, as True is none here."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        # Tensors of one number have an index as well.
        return None if getattr(value, "shape", ()) != () else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return None


def at_least(name: str, value: object, least: float, kind: type[int] | type[float]) -> Any:
    """A finite number of this kind, from `least` on.

    Raises:
        OptionError: it is none.
    """
    number = integer(value)
    if number is None and kind is float and isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
    if number is None or not least <= number < float("inf"):
        wanted = "an integer" if kind is int else "a number"
        raise OptionError(f"{name} must be {wanted} of at least {least}, got {shown(value)}")
    return number


def one_of_integers(name: str, value: object, known: Sequence[int]) -> int:
    """One of a few numbers.

    Raises:
        OptionError: it is none of them.
    """
    number = integer(value)
    if number is None or number not in known:
        raise OptionError(f"{name} must be {', '.join(map(str, known[:-1]))} or {known[-1]}, got {shown(value)}")
    return number


def flag(name: str, value: object) -> bool:
    """True or False.

    Raises:
        OptionError: it is neither.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be True or False, got {shown(value)}")
    return value


def texts(name: str, value: object) -> tuple[str, ...]:
    """A string, or several, none of them empty.

    Raises:
        OptionError: it is something else.
    """
    several = (value,) if isinstance(value, str) else value
    fits = isinstance(several, Sequence | Set) and not isinstance(several, bytes | bytearray)
    if not isinstance(several, Sequence | Set) or not fits or not all(isinstance(x, str) and x for x in several):
        raise OptionError(f"{name} must be a string or a list of non-empty strings, got {shown(value)}")
    return tuple(several)


def integers(name: str, value: object) -> tuple[int, ...]:
    """Several integers, in a list or whatever else has a length and an order.

    Raises:
        OptionError: they are none.
    """
    if isinstance(value, str | bytes | bytearray | Mapping) or not hasattr(value, "__iter__"):
        raise OptionError(f"{name} must be a list of integers, got {shown(value)}")
    found = []
    for item in value:  # type: ignore[attr-defined]
        number = integer(item)
        if number is None:
            raise OptionError(f"{name} must be a list of integers, got {shown(item)} in it")
        found.append(number)
    return tuple(found)


def declarations(name: str, value: object) -> None:
    """Several mappings in a list, or None.

    Raises:
        OptionError: it is something else.
    """
    if value is None:
        return
    wanted = f"{name} must be a list of declarations, each a mapping like {{'type': 'function', 'function': {{...}}}}"
    if isinstance(value, Mapping):
        raise OptionError(f"{wanted}; got one mapping: put it into a list")
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise OptionError(f"{wanted}; got {shown(value)}")
    for declaration in value:
        if not isinstance(declaration, Mapping):
            raise OptionError(f"{wanted}; got {shown(declaration)} in it")
