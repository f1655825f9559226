"""What an automaton counts beside its state: fields that a call has had, and how often a part stands there.

Unrolled into states, a string of at most 2,000 characters would be 20,000 of them, and eight arguments in any order
256 times as many. Rules are held only where they are enabled, and until then cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

FIELDS, BITS = 4, 63


class Kind(IntEnum):
    """What a rule does; `native/automata.cpp` knows them by number."""

    COUNT = 0
    CHECK = 1
    SET = 2
    REQUIRE = 3
    OPEN = 4
    CLOSE = 5
    LEAVE = 6


@dataclass(frozen=True)
class Rule:
    """A step of counting.

    Attributes:
        kind: COUNT one more in a field; CHECK that it has enough, and clear it; SET a bit that is not set; REQUIRE
            bits, and clear all of their group. OPEN, CLOSE and LEAVE count nothing: they tell whoever reads a text
            where an item of a list without repeats begins and ends, and where the list does.
        place: of the field, or of the bit.
        least, most: of COUNT and CHECK; `most` -1 is without end.
        need, clear: bits of REQUIRE.
        group: which fields belong together, or which list without repeats it is.
        always: whether it is held from the beginning.
    """

    kind: Kind
    place: int = 0
    least: int = 0
    most: int = -1
    need: int = 0
    clear: int = 0
    group: int = -1
    always: bool = False


@dataclass(frozen=True)
class Registers:
    """Bits that are set, and what each field counts."""

    bits: int = 0
    counts: tuple[int, ...] = (0,) * FIELDS


def applied(registers: Registers, rules: Iterable[tuple[Rule, bool]]) -> Registers | int:
    """The registers after these rules, (rule, whether it is enabled) each; the number of the first that is broken.

    A lower bound is always held: up to there, counting goes whether or not there is an upper one that is enabled.
    """
    bits, counts = registers.bits, list(registers.counts)
    for number, (rule, enabled) in enumerate(rules):
        if rule.kind is Kind.COUNT:
            bounded = enabled and rule.most >= 0
            if bounded and counts[rule.place] >= rule.most:
                return number
            if bounded or counts[rule.place] < rule.least:
                counts[rule.place] += 1
        elif rule.kind is Kind.CHECK:
            if counts[rule.place] < rule.least:
                return number
            counts[rule.place] = 0
        elif rule.kind is Kind.SET:
            if not enabled:
                continue
            if bits >> rule.place & 1:
                return number
            bits |= 1 << rule.place
        elif rule.kind is Kind.REQUIRE:
            if enabled and rule.need & ~bits:
                return number
            bits &= ~rule.clear
    return Registers(bits, tuple(counts))
