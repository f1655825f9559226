"""Schemas whose keywords stand beside each other alone, and what two of them allow together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from math import lcm
from typing import Any

from redraft.core.errors import OptionError, SchemaError
from redraft.text.grammar.anchored import PatternError
from redraft.text.grammar.compile import written_out
from redraft.text.grammar.core import Core
from redraft.text.grammar.regex import anywhere
from redraft.text.grammar.words import symbols
from redraft.text.schema.checks import among, joined

_HIGHEST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_LOWEST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}


@dataclass(frozen=True)
class Flat:
    """A schema without references and combinations.

    `type` is a list, `enum` stands for `const` too, `pattern` and `format` are lists, arrays are described as draft
    2020-12 has it, and what mappings ask of each other is in `dependent`: by key, schemas that hold where it is there.

    Attributes:
        keywords: by name.
        path: where the schema stands.
        where: of keywords that came from elsewhere, the path of the schema that they stand in.
        followed: references that led here.
        loose: the schema before a part of it was left out that need not be written; None where nothing was.
    """

    keywords: dict[str, Any]
    path: str
    where: dict[str, str] = field(default_factory=dict)
    followed: tuple[str, ...] = ()
    loose: Flat | None = None

    @property
    def all(self) -> Flat:
        """The schema with what is not written of it."""
        return self.loose or self

    def part(self, **keywords: Any) -> Flat:
        """A part of what the schema allows, as far as its other keywords say."""
        return replace(self.changed(**keywords), loose=self.all)

    def at(self, keyword: str) -> str:
        """The path of a keyword."""
        return joined(self.where.get(keyword, self.path), keyword)

    def get(self, keyword: str, default: Any = None) -> Any:
        """A keyword's value."""
        return self.keywords.get(keyword, default)

    def changed(self, **keywords: Any) -> Flat:
        """The schema with other keywords; None takes one away."""
        kept = {**self.keywords, **keywords}
        return replace(self, keywords={k: v for k, v in kept.items() if v is not None})


def together(one: Flat, other: Flat) -> Flat | None:
    """What two schemas allow at once; None where their types or values leave nothing.

    Raises:
        SchemaError: keywords whose common part cannot be said.
    """
    if one.loose or other.loose:
        found = together(replace(one, loose=None), replace(other, loose=None))
        return found and replace(found, loose=together(one.all, other.all))
    if not one.keywords:
        return Flat(other.keywords, other.path, other.where, _followed(one, other))
    _closed(one, other)
    found, where = dict(one.keywords), {name: one.where.get(name, one.path) for name in one.keywords}
    # What it came to is in `enum`.
    where |= {name: flat.where[name] for flat in (one, other) for name in ("const",) if name in flat.where}
    for name, value in other.keywords.items():
        if name in found and name not in ("properties", "prefixItems"):
            found[name] = _joined(name, found[name], value, other)
            if found[name] is None:
                return None
        else:
            found.setdefault(name, value)
        where.setdefault(name, other.where.get(name, other.path))
        if found[name] is value:
            where[name] = other.where.get(name, other.path)
    properties = _properties(one, other)
    if properties:
        found["properties"] = properties
    if "prefixItems" in one.keywords or "prefixItems" in other.keywords:
        found["prefixItems"] = _prefix(one, other)
    return Flat(found, other.path, where, _followed(one, other))


def _followed(one: Flat, other: Flat) -> tuple[str, ...]:
    # Branches of one schema share what led to it.
    shared = 0
    while shared < min(len(one.followed), len(other.followed)) and one.followed[shared] == other.followed[shared]:
        shared += 1
    return one.followed + other.followed[shared:]


def both(one: Any, other: Any) -> Any:
    """The schema of what two schemas allow at once."""
    if one is True or one == {}:
        return other
    if other is True or other == {} or one is other:
        return one
    return False if one is False or other is False else {"allOf": [one, other]}


def _joined(name: str, one: Any, other: Any, flat: Flat) -> Any:
    """The common part of one keyword's two values; None where it is nothing."""
    if name in _HIGHEST:
        return max(one, other)
    if name in _LOWEST:
        return min(one, other)
    if name == "type":
        kinds = [kind for kind in one if kind in other or (kind == "integer" and "number" in other)]
        kinds += ["integer"] if "number" in one and "integer" in other else []
        return kinds or None
    if name == "enum":
        return [value for value in one if among(value, other)] or None
    if name in ("pattern", "format"):
        return list(dict.fromkeys([*one, *other]))
    if name == "required":
        return list(dict.fromkeys([*one, *other]))
    if name in ("items", "additionalProperties", "propertyNames"):
        return both(one, other)
    if name == "uniqueItems":
        return one or other
    if name == "multipleOf":
        return one if one == other else _multiple(one, other, flat)
    if name == "dependent":
        return [*one, *other]
    if name == "patternProperties":
        return {key: both(one[key], other[key]) if key in one and key in other else {**one, **other}[key]
                for key in {**one, **other}}  # fmt: skip
    raise AssertionError(name)


def _multiple(one: Any, other: Any, flat: Flat) -> Any:
    fractions = Fraction(one), Fraction(other)
    bottom = lcm(*(fraction.denominator for fraction in fractions))
    found = Fraction(lcm(*(int(fraction * bottom) for fraction in fractions)), bottom)
    if found > 10**15:
        raise SchemaError(flat.at("multipleOf"), "is too large together with another one: write one number")
    return int(found) if found.denominator == 1 else float(found)


def _properties(one: Flat, other: Flat) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in {**one.get("properties", {}), **other.get("properties", {})}:
        found[key] = both(of_key(one, key), of_key(other, key))
    return found


def of_key(flat: Flat, key: str) -> Any:
    """The schema of a key's value; patterns that match the key count as well.

    Raises:
        SchemaError: a pattern of keys that cannot be searched for.
    """
    known = flat.get("properties", {})
    found = known.get(key, True)
    matched = key in known
    for pattern, schema in flat.get("patternProperties", {}).items():
        if searched(pattern, flat.at("patternProperties"))(key):
            found, matched = both(found, schema), True
    return found if matched else flat.get("additionalProperties", True)


def searched(pattern: str, path: str) -> Callable[[str], bool]:
    """Whether a pattern of ECMA 262 matches somewhere in a text, read as it is where it is written.

    Raises:
        SchemaError: it cannot be read, or takes too much.
    """
    try:
        core = _searching(pattern)
    except (PatternError, OptionError) as error:
        raise SchemaError(path, f"{pattern!r:.60} cannot be searched for ({error}): write it simpler") from None
    return lambda text: core.takes(symbols(text))


@cache
def _searching(pattern: str) -> Core:
    return written_out(anywhere(pattern))


def _closed(one: Flat, other: Flat) -> None:
    """Refuses two schemas of which one speaks of other keys by pattern and the other of all that it does not name."""
    for first, second in ((one, other), (other, one)):
        if "patternProperties" in first.keywords and (
            "patternProperties" in second.keywords or second.get("additionalProperties", True) not in (True, {})
        ):
            raise SchemaError(
                first.at("patternProperties"), "cannot be joined with the other schema here: write one schema of both"
            )


def _prefix(one: Flat, other: Flat) -> list[Any]:
    first, second = one.get("prefixItems", []), other.get("prefixItems", [])
    longest = max(len(first), len(second))
    padded = [
        list(items) + [flat.get("items", True)] * (longest - len(items))
        for items, flat in ((first, one), (second, other))
    ]
    return [both(a, b) for a, b in zip(*padded, strict=True)]
