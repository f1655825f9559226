"""Which rules a text breaks that its automaton does not hold yet, or can only break from here on."""

from __future__ import annotations

import ctypes
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.text.grammar.core import Core
from redraft.text.grammar.expansion import rule_table
from redraft.text.grammar.registers import Kind, Registers, Rule, applied
from redraft.text.native import converted, library
from redraft.text.vocabulary import Vocabulary

# Ways that are tried from an open end before it is taken for one that can be closed.
MOST_TRIED = 20_000


@dataclass(frozen=True, eq=False)
class Breaches:
    """Looks for broken rules.

    Attributes:
        core: the language.
        vocabulary: how its tokens are spelled.
        end_ids: tokens that end a text.
    """

    core: Core
    vocabulary: Vocabulary
    end_ids: tuple[int, ...]

    def of(self, token_ids: Sequence[int]) -> frozenset[int]:
        """Numbers of the rules that a text breaks.

        Of a text that does not end, also those that stand in its way to an end: all of them where there is no other
        way, and else those that ask for something still to come, so that its length is counted.
        """
        if not self.core.rules:
            return frozenset()
        native = library("breaches")
        return self._reference(token_ids) if native is None else self._native(native, token_ids)

    @cached_property
    def distances(self) -> NDArray[np.int32]:
        """[S] symbols from each state to an end, whatever is counted."""
        return _distances(self.core)

    def _reference(self, token_ids: Sequence[int]) -> frozenset[int]:
        core, (inside, at_start) = self.core, self._texts
        state, registers, opened, broken = core.start, Registers(), True, set[int]()
        for token in token_ids:
            if token in self.end_ids:
                if core.final[state] != DEAD:
                    self._apply(registers, core.final[state], broken)
                return frozenset(broken)
            mark = self.vocabulary.marked[token]
            for symbol in [int(mark)] if mark >= 0 else (at_start if opened else inside)[token] or b"":
                edge = (state, core.kind[symbol])
                if core.next[edge] == DEAD:
                    return frozenset(broken)
                registers = self._apply(registers, core.act[edge], broken)
                state = int(core.next[edge])
            opened = bool(self.vocabulary.opens[token])
        return frozenset(broken | self._in_the_way(state, registers))

    @cached_property
    def _texts(self) -> tuple[list[bytes | None], list[bytes | None]]:
        return self.vocabulary.readings.inside, self.vocabulary.readings.at_start

    def _apply(self, registers: Registers, steps: int, broken: set[int]) -> Registers:
        """The registers after rules, of which broken ones are passed over."""
        for number in self.core.steps[steps]:
            rule = self.core.rules[number]
            after = applied(registers, [(rule, True)])
            if isinstance(after, Registers):
                registers = after
                continue
            broken.add(number)
            registers = _passed_over(registers, rule)
        return registers

    def _in_the_way(self, state: int, registers: Registers) -> set[int]:
        core = self.core
        asking, failing = set[int](), set[int]()
        seen = {(state, registers)}
        queue = [(int(self.distances[state]), 0, state, registers)]
        pushed = 0
        for _ in range(MOST_TRIED):
            if not queue:
                return asking | failing
            _, _, state, registers = heapq.heappop(queue)
            if core.final[state] != DEAD and self._after(registers, core.final[state], asking, failing) is not None:
                return asking
            for following, steps in _edges(core, state):
                after = self._after(registers, steps, asking, failing)
                if after is not None and (following, after) not in seen:
                    seen.add((following, after))
                    # Of equal ones the newest: it is the farthest on its way.
                    pushed -= 1
                    heapq.heappush(queue, (int(self.distances[following]), pushed, following, after))
        return asking

    def _after(self, registers: Registers, steps: int, asking: set[int], failing: set[int]) -> Registers | None:
        rules = self.core.steps[steps]
        after = applied(registers, [(self.core.rules[number], True) for number in rules])
        if isinstance(after, Registers):
            return after
        number = rules[after]
        (asking if self.core.rules[number].kind is Kind.REQUIRE else failing).add(number)
        return None

    def _native(self, native: ctypes.CDLL, token_ids: Sequence[int]) -> frozenset[int]:
        vocabulary = self.vocabulary
        at_start = vocabulary.inside if vocabulary.at_start is None else vocabulary.at_start
        tokens = np.array(token_ids, np.int64)
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary.size:
            raise ValueError("a token is not of this vocabulary")
        found = np.zeros(len(self.core.rules), np.uint8)
        native.breaches_new(
            *self._tables,
            *map(converted, (vocabulary.inside.data, vocabulary.inside.begin, at_start.data, at_start.begin)),
            *map(converted, (vocabulary.opens, vocabulary.marked, tokens, len(tokens), MOST_TRIED, found)),
        )
        return frozenset(np.flatnonzero(found).tolist())

    @cached_property
    def _tables(self) -> tuple[ctypes.c_void_p | ctypes.c_int64, ...]:
        return tuple(map(converted, self._arrays))

    @cached_property
    def _arrays(self) -> tuple[NDArray | int, ...]:
        core = self.core
        begin = np.cumsum([0, *map(len, core.steps)], dtype=np.int64)
        flat = np.array([rule for rules in core.steps for rule in rules], np.int32)
        enabled, ends = np.ones(len(core.rules), np.uint8), np.array(self.end_ids, np.int64)
        return (
            core.next, core.act, core.kind, *core.next.shape, core.start, core.final, self.distances,
            rule_table(core.rules), len(core.rules), enabled, begin, flat, ends, len(ends),
        )  # fmt: skip


def _passed_over(registers: Registers, rule: Rule) -> Registers:
    if rule.kind is Kind.REQUIRE:
        return Registers(registers.bits & ~rule.clear, registers.counts)
    if rule.kind is Kind.CHECK:
        counts = list(registers.counts)
        counts[rule.place] = 0
        return Registers(registers.bits, tuple(counts))
    return registers


def _edges(core: Core, state: int) -> Iterator[tuple[int, int]]:
    """(state, steps) behind each class of symbols, each once."""
    pairs = zip(core.next[state].tolist(), core.act[state].tolist(), strict=True)
    yield from dict.fromkeys(pair for pair in pairs if pair[0] != DEAD)


def _distances(core: Core) -> NDArray[np.int32]:
    source, column = np.nonzero(core.next != DEAD)
    target = core.next[source, column]
    far = np.iinfo(np.int32).max
    distance = np.where(core.final != DEAD, 0, far).astype(np.int32)
    steps = 0
    while True:
        near = source[distance[target] == steps]
        near = near[distance[near] == far]
        if not len(near):
            return distance
        steps += 1
        distance[near] = steps
