"""From a nondeterministic automaton to a deterministic one: the definition, and the choice of the form that runs."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError
from redraft.text.grammar.core import MOST_STATES, Core, trimmed
from redraft.text.grammar.nfa import SYMBOLS, Nfa, Rules
from redraft.text.native import converted, library, pointer

# Edges of kernels that are looked at before it is given up: a second or two.
MOST_WORK = 20_000_000

# A state is its kernel: the states that the last symbol led to, in order.
Kernel = tuple[int, ...]


class AmbiguousError(Exception):
    """A text can be counted in two ways, by these rules; what they count has to be written out."""

    def __init__(self, rules: set[int]) -> None:
        super().__init__("two ways through the automaton count differently")
        self.rules = rules


def too_large() -> OptionError:
    """What is said where the bounds are reached."""
    return OptionError(f"response_format: it needs too much to compile (more than {MOST_STATES} states): simplify it")


def determinise_reference(nfa: Nfa) -> Core:
    """The subset construction, state by state.

    Raises:
        AmbiguousError: see there.
        OptionError: it becomes too large, or no text matches.
    """
    found = _Ways(nfa)
    kind, examples = _classes(nfa)
    kernels: dict[Kernel, int] = {(nfa.start,): 0}
    steps: dict[Rules, int] = {(): 0}
    rows: list[np.ndarray] = []
    acts: list[np.ndarray] = []
    final: list[int] = []
    work = 0
    queue: list[Kernel] = [(nfa.start,)]
    for kernel in queue:
        row, act = np.full((2, len(examples)), DEAD, np.int32)
        act[:] = 0
        ends = {rules for state in kernel for rules in found.ends(state)}
        if len(ends) > 1:
            raise AmbiguousError({rule for rules in ends for rule in rules})
        final.append(steps.setdefault(next(iter(ends)), len(steps)) if ends else DEAD)
        taken: dict[int, tuple[set[int], Rules]] = {}
        for state in kernel:
            for first, last, target, rules in found.ways(state):
                for column in range(kind[first], kind[last] + 1):
                    work += 1
                    targets, before = taken.setdefault(column, (set(), rules))
                    if before != rules:
                        raise AmbiguousError({*before, *rules})
                    targets.add(target)
        for column, (targets, rules) in sorted(taken.items()):
            following = tuple(sorted(targets))
            if following not in kernels:
                kernels[following] = len(kernels)
                queue.append(following)
            row[column] = kernels[following]
            act[column] = steps.setdefault(rules, len(steps))
        rows.append(row)
        acts.append(act)
        if len(kernels) > MOST_STATES or work > MOST_WORK:
            raise too_large()
    return trimmed(
        Core(np.stack(rows), np.stack(acts), kind, 0, np.array(final, np.int32), tuple(steps), tuple(nfa.rules))
    )


def _classes(nfa: Nfa) -> tuple[np.ndarray, list[int]]:
    """([512] the class of each symbol, ascending with the symbols; an example of each)."""
    begins = np.zeros(SYMBOLS + 1, np.bool_)
    begins[0] = True
    for _, first, last, _, _ in nfa.edges:
        begins[first] = begins[last + 1] = True
    kind = begins[:-1].cumsum() - 1
    return kind.astype(np.int32), np.flatnonzero(begins[:-1]).tolist()


class _Ways:
    """What leaves a state, jumps followed: each way carries the rules of all of them."""

    def __init__(self, nfa: Nfa) -> None:
        self.nfa = nfa
        self.edges: dict[int, list[tuple[int, int, int, Rules]]] = {}
        self.jumps: dict[int, list[tuple[int, Rules]]] = {}
        for source, first, last, target, rules in nfa.edges:
            self.edges.setdefault(source, []).append((first, last, target, rules))
        for source, target, rules in nfa.jumps:
            self.jumps.setdefault(source, []).append((target, rules))
        self.reached: dict[int, dict[int, Rules]] = {}

    def _from(self, state: int) -> dict[int, Rules]:
        if state in self.reached:
            return self.reached[state]
        found: dict[int, Rules] = {state: ()}
        stack = [state]
        while stack:
            source = stack.pop()
            for target, rules in self.jumps.get(source, ()):
                whole = found[source] + rules
                if target in found:
                    if found[target] != whole:
                        raise AmbiguousError({*found[target], *whole})
                    continue
                found[target] = whole
                stack.append(target)
        self.reached[state] = found
        return found

    def ways(self, state: int) -> list[tuple[int, int, int, Rules]]:
        return [
            (first, last, target, before + rules)
            for source, before in self._from(state).items()
            for first, last, target, rules in self.edges.get(source, ())
        ]

    def ends(self, state: int) -> list[Rules]:
        reached = self._from(state)
        return [reached[self.nfa.end]] if self.nfa.end in reached else []


def determinise(nfa: Nfa) -> Core:
    """The deterministic automaton of the same texts. See `determinise_reference` for errors."""
    native = library("determinise")
    return determinise_reference(nfa) if native is None else _native(native, nfa)


def _native(native: ctypes.CDLL, nfa: Nfa) -> Core:
    numbers: dict[Rules, int] = {(): 0}
    edges = np.array([(*edge[:4], numbers.setdefault(edge[4], len(numbers))) for edge in nfa.edges], np.int32)
    jumps = np.array([(*jump[:2], numbers.setdefault(jump[2], len(numbers))) for jump in nfa.jumps], np.int32)
    edges, jumps = _by_source(edges.reshape(-1, 5)), _by_source(jumps.reshape(-1, 3))
    begin = np.cumsum([0, *map(len, numbers)], dtype=np.int64)
    flat = np.array([rule for rules in numbers for rule in rules], np.int32)
    sizes = np.zeros(6, np.int64)
    arguments = (edges, len(edges), jumps, len(jumps), nfa.states, nfa.start, nfa.end, begin, len(numbers), flat)
    handle = ctypes.c_void_p(
        native.determinise_new(*map(converted, (*arguments, SYMBOLS, MOST_STATES, MOST_WORK, sizes)))
    )
    try:
        status, S, C, sequences, length, ambiguous = sizes.tolist()
        if status == 1:
            raise too_large()
        table, act = np.empty((2, S, C), np.int32)
        kind, final, words = np.empty(SYMBOLS, np.int32), np.empty(S, np.int32), np.empty(length, np.int32)
        begins, doubted = np.empty(sequences + 1, np.int64), np.empty(ambiguous, np.int32)
        native.determinise_take(handle, *map(pointer, (table, act, kind, final, begins, words, doubted)))
    finally:
        native.determinise_free(handle)
    if status == 2:
        raise AmbiguousError(set(doubted.tolist()))
    steps = tuple(tuple(words[i:j].tolist()) for i, j in itertools.pairwise(begins))
    return trimmed(Core(table, act, kind, 0, final, steps, tuple(nfa.rules)))


def _by_source(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.ascontiguousarray(rows[np.argsort(rows[:, 0], kind="stable")])
