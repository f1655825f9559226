"""What keywords of a schema mean by themselves: bounds, types, and which branches exclude each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from redraft.core.errors import SchemaError

LONGEST = 1000
OF_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}


def joined(path: str, keyword: str) -> str:
    """The path of a keyword."""
    return f"{path}.{keyword}" if path else keyword


def listed(value: Any, path: str) -> list[Any]:
    """What a keyword lists."""
    if not isinstance(value, list | tuple):
        raise SchemaError(path, f"must be a list, got {value!r:.60}")
    return list(value)


def limits(own: Mapping[str, Any], path: str) -> tuple[Fraction | None, Fraction | None, bool, bool]:
    """(low, high, low excluded, high excluded) of a number's bounds."""
    for name in OF_NUMBERS & set(own):
        if isinstance(own[name], bool) or not isinstance(own[name], int | float):
            raise SchemaError(joined(path, name), f"must be a number, got {own[name]!r}")
    bounds = {name: Fraction(own[name]) for name in OF_NUMBERS if name in own}
    lows = [(bounds[n], n == "exclusiveMinimum") for n in ("minimum", "exclusiveMinimum") if n in bounds]
    highs = [(-bounds[n], n == "exclusiveMaximum") for n in ("maximum", "exclusiveMaximum") if n in bounds]
    low, high = max(lows, default=(None, False)), max(highs, default=(None, False))
    return low[0], None if high[0] is None else -high[0], low[1], high[1]


def bounds(own: Mapping[str, Any], low: str, high: str, path: str) -> tuple[int, int | None]:
    """(least, most) of two keywords that count."""
    least, most = own.get(low), own.get(high)
    least = 0 if least is None else least
    for name, bound in ((low, least), (high, most)):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or bound < 0):
            raise SchemaError(joined(path, name), f"must be an integer of at least 0, got {bound!r}")
        if bound is not None and bound > LONGEST:
            raise SchemaError(joined(path, name), f"at most {LONGEST} can be enforced, got {bound}")
    if most is not None and least > most:
        raise SchemaError(joined(path, low), f"{least} is more than {high}, {most}")
    return least, most


def among(value: Any, values: Iterable[Any]) -> bool:
    """Whether JSON's equality, in which 1 is 1.0 and not true, finds a value among others."""
    return any(_equal(value, other) for other in values)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def exclude(one: Any, other: Any) -> bool:
    """Whether two branches have no value in common, as far as their types and values tell."""
    (kinds, values), (other_kinds, other_values) = _taken(one), _taken(other)
    if values is not None and other_values is not None:
        return not any(among(value, other_values) for value in values)
    if values is not None:
        return bool(other_kinds) and not any(is_of(value, kind) for value in values for kind in other_kinds)
    if other_values is not None:
        return exclude(other, one)
    numeric = {"integer", "number"}
    both_numeric = bool(kinds & numeric) and bool(other_kinds & numeric)
    return bool(kinds) and bool(other_kinds) and not kinds & other_kinds and not both_numeric


def _taken(branch: Any) -> tuple[set[str], list[Any] | None]:
    """(types, values) that a branch names; no types and None where it names none."""
    if not isinstance(branch, Mapping):
        return set(), None
    kinds = branch.get("type", ())
    values = [branch["const"]] if "const" in branch else branch.get("enum")
    return {kinds} if isinstance(kinds, str) else set(kinds), values


def is_of(value: Any, kind: str) -> bool:
    """Whether a value is of a type, as JSON Schema means it: 1.0 is an integer, true is no number."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    checks = {
        "object": isinstance(value, Mapping),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": whole and not isinstance(value, bool),
        "boolean": isinstance(value, bool),
        "null": value is None,
    }
    return checks[kind]
