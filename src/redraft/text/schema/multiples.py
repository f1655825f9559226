"""Numbers of a schema: integers and decimals between bounds, and multiples of what can be told from digits."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.grammar.build import any_of
from redraft.text.grammar.nodes import Both, Node, Text
from redraft.text.grammar.regex import whole
from redraft.text.schema.checks import OF_NUMBERS, Unfit, limits
from redraft.text.schema.flat import Flat
from redraft.text.schema.formats import RANGES
from redraft.text.schema.numbers import DIGITS, INTEGER, NUMBER, integers, numbers

MOST_LISTED = 1000
# One way to write each number, of as many digits as 64-bit floats tell apart.
_ONE_WAY = r"0|-?(?:[1-9][0-9]{0,7}(?:\.[0-9]{0,6}[1-9])?|0\.[0-9]{0,6}[1-9])"
_ONE_WAY_BOUNDED = r"0|-?(?:[1-9][0-9]*(?:\.[0-9]*[1-9])?|0\.[0-9]*[1-9])"
_BY_THREE = (
    "(?:[0369]|[147][0369]*[258]|(?:[258]|[147][0369]*[147])(?:[0369]|[258][0369]*[147])*(?:[147]|[258][0369]*[258]))+"
)
_ENDINGS = {Fraction(1, 2): "5", Fraction(1, 4): "25|5|75", Fraction(1, 8): "125|25|375|5|625|75|875"}


def number_node(flat: Flat, *, whole_only: bool, one_way: bool) -> Node:
    """The numbers that a schema allows; `one_way` writes each in one way alone.

    Raises:
        SchemaError: there are none, or multiples that digits do not tell.
    """
    bounds = {name: flat.get(name) for name in OF_NUMBERS if name in flat.keywords}
    for name in flat.get("format", ()):
        if name in RANGES:
            low, high = RANGES[name]
            _tighten(bounds, low, high)
            whole_only = True
    if "multipleOf" in flat.keywords:
        found = _multiples(flat, bounds, whole_only)
        return Both(found, _read(_ONE_WAY_BOUNDED)) if one_way and isinstance(found, Both) else found
    return _whole(flat, bounds) if whole_only else _decimal(flat, bounds, one_way)


def _tighten(bounds: dict[str, Any], low: int, high: int) -> None:
    # What is written without a bound has fewer digits anyway.
    if low > -(10**DIGITS) and (low < 0 or "exclusiveMinimum" not in bounds):
        bounds["minimum"] = max(low, bounds.get("minimum", low))
    if high < 10**DIGITS:
        bounds["maximum"] = min(high, bounds.get("maximum", high))


@lru_cache(1024)
def _read(pattern: str) -> Node:
    return whole(pattern)


def _ends(bounds: Mapping[str, Any]) -> tuple[int | None, int | None]:
    low, high, open_low, open_high = limits(bounds)
    least = None if low is None else low.__floor__() + 1 if open_low else low.__ceil__()
    most = None if high is None else high.__ceil__() - 1 if open_high else high.__floor__()
    return least, most


def _whole(flat: Flat, bounds: Mapping[str, Any]) -> Node:
    if not bounds:
        return _read(INTEGER)
    found = integers(*_ends(bounds))
    if found is None:
        raise Unfit(flat.path, "no integer lies between its bounds: widen them")
    return _read(found)


def _decimal(flat: Flat, bounds: Mapping[str, Any], one_way: bool) -> Node:
    if not bounds:
        return _read(_ONE_WAY if one_way else NUMBER)
    low, high, open_low, open_high = limits(bounds)
    found = numbers(low, high, open_low=open_low, open_high=open_high)
    if found is None:
        raise Unfit(flat.path, "no number between its bounds can be written: at least one whole number must lie there")
    return Both(_read(found), _read(_ONE_WAY_BOUNDED)) if one_way else _read(found)


def _multiples(flat: Flat, bounds: Mapping[str, Any], whole_only: bool) -> Node:
    step, path = Fraction(flat.get("multipleOf")), flat.at("multipleOf")
    if step.denominator > 8:
        raise SchemaError(
            path, "fractions other than 0.5, 0.25 and 0.125 cannot be enforced, for readers round them differently:"
            " count in whole numbers, as cents, or use a string with a pattern"
        )  # fmt: skip
    if whole_only or step.denominator == 1:
        step = Fraction(step.numerator)
        least, most = _ends(bounds)
        if least is not None and most is not None and (most - least) // step.numerator < MOST_LISTED:
            first = -(-least // step.numerator) * step.numerator
            values = range(first, most + 1, step.numerator)
            if not values:
                raise Unfit(path, "no multiple lies between its bounds: widen them")
            return any_of(Text(str(value)) for value in values)
        return _stepped(step.numerator, path, _whole(flat, bounds))
    if step not in _ENDINGS:
        raise SchemaError(path, "of fractions 0.5, 0.25 and 0.125 alone can be enforced: give minimum and maximum")
    ending = whole(rf"-?(?:0|[1-9][0-9]*)(?:\.(?:{_ENDINGS[step]}))?")
    return Both(_decimal(flat, bounds, False) if bounds else _read(NUMBER), ending)


def _stepped(step: int, path: str, found: Node) -> Node:
    """The multiples among integers, by their last digits and the sum of all."""
    rest, places = step, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        places = max(places, power)
    if rest not in (1, 3) or places > 6 or 10**places // (step // rest) > MOST_LISTED:
        raise SchemaError(
            path, f"multiples of {step} can be enforced only between a minimum and a maximum with at most {MOST_LISTED}"
            " of them: give both"
        )  # fmt: skip
    if places:
        tail = step // rest
        long = "|".join(f"{end:0{places}d}" for end in range(0, 10**places, tail))
        short = "|".join(str(value) for value in range(0, 10 ** (places - 1), tail))
        found = Both(found, whole(f"-?(?:{short}|[0-9]*(?:{long}))"))
    return Both(found, whole(f"-?{_BY_THREE}")) if rest == 3 else found
