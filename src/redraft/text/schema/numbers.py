"""Integers and decimal numbers between bounds, as regular expressions.

Comparison is exact: digits are compared as they are written, and near a bound numbers have so few of them that reading
them as 64-bit floats keeps their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

# Decimals of so many digits are told apart by 64-bit floats.
DIGITS = 15
INTEGER = rf"(?:0|-?[1-9][0-9]{{0,{DIGITS - 1}}})"
NUMBER = rf"(?:-?(?:0|[1-9][0-9]{{0,{DIGITS - 1}}})(?:\.[0-9]{{1,{DIGITS}}})?(?:[eE][+-]?[0-9]{{1,2}})?)"


def integers(least: int | None, most: int | None) -> str | None:
    """Integers from `least` to `most`, without leading zeros; a side without a bound ends at 15 digits.

    Returns:
        The pattern, or None if there is no such integer.
    """
    low = -_beyond(-(most or 0)) if least is None else least
    high = _beyond(low) if most is None else most
    if low > high:
        return None
    patterns = [_naturals(max(low, 0), high)] if high >= 0 else []
    if low < 0:
        patterns.append("-" + _naturals(max(-high, 1), -low))
    return _any_of(patterns)


def numbers(low: Fraction | None, high: Fraction | None, *, open_low: bool, open_high: bool) -> str | None:
    """Numbers between bounds, without an exponent; a side without a bound ends at 15 digits before the point.

    Args:
        low, high: the bounds; a float counts as the decimal number that it is written as.
        open_low, open_high: whether the bound itself is outside.

    Returns:
        The pattern, or None if no number of so few digits lies there.
    """
    floor, ceiling = _decimal(low), _decimal(high)
    given = [abs(bound) for bound in (floor, ceiling) if bound is not None]
    if not given:
        return NUMBER
    places = max(0, DIGITS - max(len(str(int(bound))) for bound in given))
    # A whole power of ten outside the range needs no digit of its own compared.
    if floor is None:
        floor, open_low = Decimal(-_beyond(-int(ceiling or 0)) - 1), True
    if ceiling is None:
        ceiling, open_high = Decimal(_beyond(int(floor)) + 1), True
    if floor > ceiling:
        return None
    patterns = []
    if ceiling >= 0:
        patterns.append(_magnitudes(floor, open_low, ceiling, open_high, places))
    if floor < 0:
        negative = _magnitudes(-ceiling, open_high, -floor, open_low, places)
        patterns.append(negative and "-" + negative)
    found = [pattern for pattern in patterns if pattern]
    return _any_of(found) if found else None


def _decimal(bound: Fraction | None) -> Decimal | None:
    if bound is None:
        return None
    # The fraction of 0.1 is a little more than the decimal number; what a reply says is the decimal number.
    return Decimal(bound.numerator) if bound.denominator == 1 else Decimal(repr(float(bound)))


def _beyond(bound: int) -> int:
    """The last number of a side without a bound."""
    return 10 ** max(DIGITS, len(str(bound)) + 1 if bound > 0 else 0) - 1


def _any_of(patterns: list[str]) -> str:
    return patterns[0] if len(patterns) == 1 else f"(?:{'|'.join(patterns)})"


def _digits(least: int, most: int) -> str:
    return f"[0-9]{{{least},{most}}}" if most else ""


def _digit(first: int, last: int) -> str:
    return str(first) if first == last else f"[{first}-{last}]"


def _naturals(low: int, high: int) -> str:
    patterns, whole = [], []
    for length in range(len(str(low)), len(str(high)) + 1):
        least, most = 10 ** (length - 1) if length > 1 else 0, 10**length - 1
        if length > 1 and low <= least and most <= high:
            whole.append(length)
        else:
            patterns.append(_of_one_length(str(max(low, least)), str(min(high, most))))
    if whole:
        patterns.append("[1-9]" + _digits(whole[0] - 1, whole[-1] - 1))
    return _any_of(patterns)


def _of_one_length(low: str, high: str) -> str:
    """Digit strings of one length from `low` to `high`."""
    rest = len(low) - 1
    if set(low) <= {"0"} and set(high) <= {"9"}:
        return _digits(len(low), len(low))
    first, last = int(low[0]), int(high[0])
    if first == last:
        return low[0] + _of_one_length(low[1:], high[1:])
    patterns = []
    if set(low[1:]) - {"0"}:
        patterns.append(low[0] + _of_one_length(low[1:], "9" * rest))
        first += 1
    if set(high[1:]) - {"9"}:
        patterns.append(high[0] + _of_one_length("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        patterns.append(_digit(first, last) + _digits(rest, rest))
    return _any_of(patterns)


def _magnitudes(low: Decimal, above: bool, high: Decimal, below: bool, places: int) -> str | None:
    """Numbers without a sign, up to `places` digits behind the point; a bound under zero is none."""
    if low < 0:
        low, above = Decimal(0), False
    first, last = int(low), int(high)
    floor, ceiling = _Edge(_fraction_digits(low), above), _Edge(_fraction_digits(high), below)
    if first == last:
        parts = [(first, first, _fractions(floor, ceiling, places))]
    else:
        parts = [(first, first, _fractions(floor, None, places)), (last, last, _fractions(None, ceiling, places))]
        if first + 1 < last:
            parts.append((first + 1, last - 1, _fractions(None, None, places)))
    patterns = []
    for least, most, (bare, digits) in parts:
        tail = _tail(bare, digits and rf"\.{digits}")
        if tail is not None:
            patterns.append(_naturals(least, most) + tail)
    return _any_of(patterns) if patterns else None


@dataclass(frozen=True)
class _Edge:
    """A bound of a fraction: the digits behind the point, and whether it is itself outside."""

    digits: str
    strict: bool

    @property
    def head(self) -> int:
        return int(self.digits[:1] or "0")

    @property
    def rest(self) -> _Edge:
        return _Edge(self.digits[1:], self.strict)


def _fractions(low: _Edge | None, high: _Edge | None, places: int) -> tuple[bool, str | None]:
    """Digits behind a point, between bounds: whether there may be none, and which there may be if there are some."""
    if low and not low.digits and not low.strict:
        low = None
    bare = low is None and (high is None or bool(high.digits) or not high.strict)
    if not places or (high and not high.digits and high.strict):
        return bare, None
    if low is None and high is None:
        return bare, _digits(1, places)
    if low is None and high and not high.digits:
        return bare, f"0{{1,{places}}}"
    if high is None and low and not low.digits:
        # More digits than `places` may follow the zeros; they only lead farther from the bound.
        return bare, f"0{{0,{places - 1}}}[1-9]{_digits(0, places - 1)}"
    first, last = low.head if low else 0, high.head if high else 9
    patterns: list[str | None] = []
    if low and high and first == last:
        patterns.append(_led(first, _fractions(low.rest, high.rest, places - 1)))
    else:
        if low:
            patterns.append(_led(first, _fractions(low.rest, None, places - 1)))
            first += 1
        if high:
            patterns.append(_led(last, _fractions(None, high.rest, places - 1)))
            last -= 1
        if first <= last:
            patterns.append(_digit(first, last) + _digits(0, places - 1))
    found = [pattern for pattern in patterns if pattern is not None]
    return bare, _any_of(found) if found else None


def _led(digit: int, rest: tuple[bool, str | None]) -> str | None:
    tail = _tail(*rest)
    return None if tail is None else f"{digit}{tail}"


def _tail(bare: bool, digits: str | None) -> str | None:
    if digits is None:
        return "" if bare else None
    return f"(?:{digits})?" if bare else digits


def _fraction_digits(number: Decimal) -> str:
    return f"{number:f}".partition(".")[2].rstrip("0")
