"""Which rules a text breaks that its automaton does not hold yet, or can only break from here on."""

from __future__ import annotations

import ctypes
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.text.grammar.core import Core, distances
from redraft.text.grammar.expansion import rule_table
from redraft.text.grammar.registers import Kind, Registers, Rule, applied
from redraft.text.grammar.words import text_of
from redraft.text.native import converted, library
from redraft.text.vocabulary import Vocabulary

# Ways that are tried from an open end before it is taken for one that can be closed.
MOST_TRIED = 20_000
# Items that begin as an open one does and are barred at once; of more, one that is new is sure to be at hand.
MOST_ALIKE = 4


@dataclass(frozen=True)
class Found:
    """What a text breaks.

    Attributes:
        rules: by number.
        repeated: (list, item) of items that stand in a list without repeats more than once.
    """

    rules: frozenset[int] = frozenset()
    repeated: frozenset[tuple[int, str]] = frozenset()


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

    def of(self, token_ids: Sequence[int]) -> Found:
        """What a text breaks.

        Of a text that does not end, also those that stand in its way to an end: all of them where there is no other
        way, and else those that ask for something still to come, so that its length is counted.
        """
        if not self.core.rules:
            return Found()
        native = None if self._tells_items else library("breaches")
        return self._reference(token_ids) if native is None else Found(self._native(native, token_ids))

    @cached_property
    def _tells_items(self) -> bool:
        return any(rule.kind is Kind.CLOSE for rule in self.core.rules)

    @cached_property
    def distances(self) -> NDArray[np.int32]:
        """[S] symbols from each state to an end, whatever is counted."""
        return distances(self.core.next, self.core.final != DEAD)

    def _reference(self, token_ids: Sequence[int]) -> Found:
        core, (inside, at_start) = self.core, self._texts
        state, reader, opened = core.start, _Reader(core), True
        for token in token_ids:
            if token in self.end_ids:
                if core.final[state] != DEAD:
                    reader.read(core.final[state], None)
                return reader.found()
            mark = self.vocabulary.marked[token]
            for symbol in [int(mark)] if mark >= 0 else (at_start if opened else inside)[token] or b"":
                edge = (state, core.kind[symbol])
                if core.next[edge] == DEAD:
                    return reader.found()
                reader.read(core.act[edge], symbol)
                state = int(core.next[edge])
            opened = bool(self.vocabulary.opens[token])
        reader.stop()
        return reader.found(self._in_the_way(state, reader.registers))

    @cached_property
    def _texts(self) -> tuple[list[bytes | None], list[bytes | None]]:
        return self.vocabulary.readings.inside, self.vocabulary.readings.at_start

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
        begin, flat = core.packed_steps()
        enabled, ends = np.ones(len(core.rules), np.uint8), np.array(self.end_ids, np.int64)
        return (
            core.next, core.act, core.kind, *core.next.shape, core.start, core.final, self.distances,
            rule_table(core.rules), len(core.rules), enabled, begin, flat, ends, len(ends),
        )  # fmt: skip


class _Reader:
    """Reads a text with every rule held; what it breaks is passed over."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.registers = Registers()
        self.broken = set[int]()
        self.repeated = set[tuple[int, str]]()
        self.symbols: list[int] = []
        self.opened: dict[int, int] = {}
        self.items: dict[int, set[str]] = {}

    def found(self, more: Iterable[int] = ()) -> Found:
        return Found(frozenset({*self.broken, *more}), frozenset(self.repeated))

    def stop(self) -> None:
        """The text goes on: an item that is open must be able to become one that is not there yet."""
        for number, opened in self.opened.items():
            begun = text_of(self.symbols[opened:])
            alike = {item for item in self.items.get(number, ()) if item.startswith(begun)}
            if len(alike) <= MOST_ALIKE:
                self.repeated |= {(number, item) for item in alike}

    def read(self, steps: int, symbol: int | None) -> None:
        """What happens before a symbol, or before the end."""
        for number in self.core.steps[steps]:
            rule = self.core.rules[number]
            if rule.kind is Kind.OPEN:
                self.opened[rule.group] = len(self.symbols)
            elif rule.kind is Kind.CLOSE:
                self._close(rule.group)
            elif rule.kind is Kind.LEAVE:
                self.items.pop(rule.group, None)
            else:
                self._apply(number, rule)
        if symbol is not None:
            self.symbols.append(symbol)

    def _close(self, number: int) -> None:
        item = text_of(self.symbols[self.opened.pop(number) :])
        items = self.items.setdefault(number, set())
        if item in items:
            self.repeated.add((number, item))
        items.add(item)

    def _apply(self, number: int, rule: Rule) -> None:
        after = applied(self.registers, [(rule, True)])
        if isinstance(after, Registers):
            self.registers = after
        elif not rule.always:
            self.broken.add(number)
            self.registers = _passed_over(self.registers, rule)


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
