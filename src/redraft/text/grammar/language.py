"""A language of replies as it is compiled: what is held from the beginning, and what once a text breaks it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.text.bare_calls import spelling_no_call
from redraft.text.grammar.breaches import Breaches
from redraft.text.grammar.compile import compiled, without
from redraft.text.grammar.core import Core, product
from redraft.text.grammar.nodes import Node
from redraft.text.grammar.registers import Kind
from redraft.text.grammar.spelling import Spelling
from redraft.text.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Language:
    """A language, and what of it is narrowed already.

    Attributes:
        node: what was asked for.
        bars_calls: whether text before the first mark may spell no call.
        words: what ordinary tokens may not spell.
        barred: those of them that `core` bars.
        once: (list, item) of lists without repeats that `core` counts, in the order in which they were met.
        core: over bytes and marks.
        spelling: over a vocabulary; None where there is no compiler.
    """

    node: Node
    bars_calls: bool
    words: tuple[str, ...]
    barred: frozenset[str]
    once: tuple[tuple[int, str], ...]
    core: Core
    spelling: Spelling | None = field(repr=False)

    @classmethod
    def core_of(
        cls, node: Node, bars_calls: bool, barred: Iterable[str] = (), once: Iterable[tuple[int, str]] = ()
    ) -> Core:
        """The automaton of a tree with this much held."""
        lists: dict[int, tuple[str, ...]] = {}
        for number, item in once:
            lists[number] = (*lists.get(number, ()), item)
        core = compiled(node, lists)
        if bars_calls:
            core = product(core, spelling_no_call())
        words = sorted(barred)
        return without(core, words) if words else core

    @cached_property
    def optional(self) -> list[int]:
        """Numbers of the rules that are held once they are broken, in an order that does not change with what is."""
        return [number for number, rule in enumerate(self.core.rules) if not rule.always]

    def enabled(self, held: frozenset[int]) -> NDArray[np.uint8]:
        """[n] which rules are held, by the places in `optional` of those that are."""
        flags = np.array([rule.always for rule in self.core.rules], np.uint8)
        for place in held:
            number = self.optional[place]
            flags[number] = 1
            rule = self.core.rules[number]
            if rule.kind is not Kind.REQUIRE:
                continue
            for other, field_rule in enumerate(self.core.rules):
                needed = field_rule.kind is Kind.SET and rule.need >> field_rule.place & 1
                if needed and field_rule.group == rule.group:
                    flags[other] = 1
        return flags

    def places(self, rules: Iterable[int]) -> frozenset[int]:
        """Places in `optional` of these rules."""
        place = {number: place for place, number in enumerate(self.optional)}
        return frozenset(place[number] for number in rules if number in place)

    def breaches(self, vocabulary: Vocabulary, end_ids: tuple[int, ...]) -> Breaches:
        """What looks for broken rules, made once."""
        return self.__dict__.setdefault("_breaches", Breaches(self.core, vocabulary, end_ids))

    def __getstate__(self) -> dict[str, Any]:
        """Without the vocabulary, of which every process has its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_breaches"}
