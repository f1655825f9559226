"""What keywords of a schema mean by themselves: bounds, types, JSON's equality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from redraft.core.errors import SchemaError

# Of characters, items or pairs.
LONGEST = 100_000
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
OF_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


class Unfit(SchemaError):
    """Keywords that exclude each other."""


def joined(path: str, keyword: str) -> str:
    """The path of a keyword."""
    return f"{path}.{keyword}" if path else keyword


def listed(value: Any, path: str) -> list[Any]:
    """What a keyword lists."""
    if not isinstance(value, list | tuple):
        raise SchemaError(path, f"must be a list, got {value!r:.60}")
    return list(value)


def names(value: Any, path: str) -> list[str]:
    """The names that a keyword lists."""
    found = listed(value, path)
    for name in found:
        if not isinstance(name, str):
            raise SchemaError(path, f"must be a list of names, got {name!r:.60} in it")
    return found


def mapping(value: Any, path: str) -> Mapping[str, Any]:
    """What a keyword maps from names."""
    if not isinstance(value, Mapping):
        raise SchemaError(path, f"must be a mapping, got {value!r:.60}")
    for name in value:
        if not isinstance(name, str):
            raise SchemaError(path, f"a name must be a string, got {name!r:.60}")
    return value


def types(value: Any, path: str) -> list[str]:
    """The types that `type` names, one or several."""
    found = list(value) if isinstance(value, list | tuple) else [value]
    if not found:
        raise SchemaError(path, "must not be empty")
    for kind in found:
        if not isinstance(kind, str) or kind not in TYPES:
            raise SchemaError(path, f"{kind!r:.60} is no type: {', '.join(TYPES)}")
    return [kind for kind in dict.fromkeys(found) if not (kind == "integer" and "number" in found)]


def number(value: Any, path: str) -> int | float:
    """A number that a keyword gives."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SchemaError(path, f"must be a number, got {value!r:.60}")
    return value


def count(value: Any, path: str) -> int:
    """How many a keyword says; 2.0 is 2."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SchemaError(path, f"must be an integer of at least 0, got {value!r:.60}")
    return value


def limits(own: Mapping[str, Any]) -> tuple[Fraction | None, Fraction | None, bool, bool]:
    """(low, high, low excluded, high excluded) of a number's bounds."""
    bounds = {name: Fraction(own[name]) for name in OF_NUMBERS if name in own}
    lows = [(bounds[n], n == "exclusiveMinimum") for n in ("minimum", "exclusiveMinimum") if n in bounds]
    highs = [(-bounds[n], n == "exclusiveMaximum") for n in ("maximum", "exclusiveMaximum") if n in bounds]
    low, high = max(lows, default=(None, False)), max(highs, default=(None, False))
    return low[0], None if high[0] is None else -high[0], low[1], high[1]


def among(value: Any, values: Iterable[Any]) -> bool:
    """Whether JSON's equality, in which 1 is 1.0 and not true, finds a value among others."""
    return any(_equal(value, other) for other in values)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def is_of(value: Any, kind: str) -> bool:
    """Whether a value is of a type, as JSON Schema means it: 1.0 is an integer, true is no number."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    checks = {
        "object": isinstance(value, Mapping),
        "array": isinstance(value, list | tuple),
        "string": isinstance(value, str),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": whole and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "null": value is None,
    }
    return checks[kind]
