"""Branches of `oneOf`: the part of one that another does not allow, so that just one of them holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redraft.text.schema.checks import TYPES, among, is_of
from redraft.text.schema.flat import Flat, of_key
from redraft.text.schema.keywords import meant

_ALL = frozenset(TYPES) - {"integer"}


def outside(one: Flat, other: Flat, fits: Callable[[Any, Flat], bool]) -> Flat | None:
    """What a schema allows, or enough of it, without what another allows.

    Types, values, bounds and lengths tell schemas apart, and objects a property's value or that it must be there.

    Args:
        one, other: the schemas.
        fits: whether a value is one that a schema allows.

    Returns:
        The schema, maybe with a property that must be there or must not; None where nothing tells them apart.
    """
    if "enum" in one.keywords:
        values = [value for value in one.get("enum") if _differs(value, other, fits)]
        return one.part(enum=values) if values else None
    shared = _written(one) & _allowed(other)
    if not shared:
        return one
    if shared == {"object"}:
        return _objects(one, other)
    if shared == {"number"}:
        return one if _apart(one, other) or _apart(other, one) else None
    if shared == {"string"}:
        shorter = one.get("maxLength", float("inf")) < other.get("minLength", 0)
        return one if shorter or other.get("maxLength", float("inf")) < one.get("minLength", 0) else None
    return None


def _differs(value: Any, other: Flat, fits: Callable[[Any, Flat], bool]) -> bool:
    # Of what is inside of values, less may be known to fit than does.
    if isinstance(value, Mapping | list | tuple):
        return not any(is_of(value, kind) for kind in _allowed(other)) or (
            "enum" in other.keywords and not among(value, other.get("enum"))
        )
    return not fits(value, other)


def _written(flat: Flat) -> frozenset[str]:
    return _general(flat.get("type", meant(flat.keywords) or _ALL))


def _allowed(flat: Flat) -> frozenset[str]:
    if "enum" in flat.keywords:
        return frozenset(kind for value in flat.get("enum") for kind in _ALL if is_of(value, kind))
    return _general(flat.get("type", _ALL))


def _general(kinds: Any) -> frozenset[str]:
    return frozenset("number" if kind == "integer" else kind for kind in kinds)


def _objects(one: Flat, other: Flat) -> Flat | None:
    required, properties = one.get("required", []), one.get("properties", {})
    if any(of_key(other, key) is False for key in required):
        return one
    theirs = other.get("properties", {})
    for key in sorted(set(properties) & set(theirs), key=lambda key: key not in required):
        mine, taken = _values(properties[key]), _values(theirs[key])
        if mine is not None and taken is not None and not any(among(value, taken) for value in mine):
            return one.part(required=list(dict.fromkeys([*required, key])))
    # What the other one requires is missing here; best what is not even declared.
    for key in sorted(other.get("required", ()), key=lambda key: key in properties):
        if key not in required:
            return one.part(properties={**properties, key: False})
    return None


def _values(schema: Any) -> list[Any] | None:
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return [schema["const"]]
    if isinstance(schema.get("enum"), list):
        return schema["enum"]
    found = [_values(part) for part in schema.get("allOf", ()) if isinstance(schema.get("allOf"), list)]
    return next((values for values in found if values is not None), None)


def _apart(one: Flat, other: Flat) -> bool:
    """Whether every number of one schema is below those of another."""
    tops = [(one.get(name), name == "exclusiveMaximum") for name in ("maximum", "exclusiveMaximum")]
    bottoms = [(other.get(name), name == "exclusiveMinimum") for name in ("minimum", "exclusiveMinimum")]
    return any(
        top < bottom or (top == bottom and (open_top or open_bottom))
        for top, open_top in tops
        for bottom, open_bottom in bottoms
        if top is not None and bottom is not None
    )
