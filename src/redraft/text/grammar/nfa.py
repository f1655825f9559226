"""From a tree to a nondeterministic automaton over symbols: bytes and marks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from redraft.core.errors import OptionError
from redraft.text.grammar import utf8
from redraft.text.grammar.nodes import (
    FIRST_MARK,
    MARKS,
    AnyOrder,
    Both,
    Chars,
    Choice,
    Distinct,
    Node,
    Repeat,
    Sequence,
    Text,
    Without,
)
from redraft.text.grammar.registers import BITS, FIELDS, Kind, Rule
from redraft.text.grammar.sizes import holds_text, size

BYTES = 256
SYMBOLS = BYTES + MARKS
# Symbols that are written out one by one where a part is repeated. Text costs more: from each of its states all words
# of a vocabulary have to be walked.
_UNROLLED, _UNROLLED_TEXT = 48, 4
MOST_EDGES = 500_000
# Symbols of a repetition that cannot be counted.
MOST_WRITTEN_OUT = 50_000
# Items of a list without repeats that may stand there once; each doubles the automaton. Others that stood there twice
# may not stand there at all.
MOST_COUNTED = 4

Rules = tuple[int, ...]


@dataclass(frozen=True)
class Other:
    """A part of which some texts are counted, and some left out.

    Attributes:
        part: it.
        counted: what the first texts do at their end, the number of a rule each.
        texts: those, and behind them the ones that are left out.
    """

    part: Node
    counted: tuple[int, ...]
    texts: tuple[str, ...]


@dataclass
class Nfa:
    """States are numbers; what a way does to the registers happens before the symbol that follows it.

    Attributes:
        edges: (source, first symbol, last symbol, target, rules) each.
        jumps: (source, target, rules) each, without a symbol.
        rules: what edges and jumps name by number.
        counted: for each COUNT and CHECK, the `id` of the repetition that it counts.
        start, end: states.
    """

    edges: list[tuple[int, int, int, int, Rules]] = field(default_factory=list)
    jumps: list[tuple[int, int, Rules]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    counted: dict[int, int] = field(default_factory=dict)
    states: int = 2
    start: int = 0
    end: int = 1


# Puts a part that is made by itself between two states, with the fields and bits that are in use around it.
Embed = Callable[["Builder", "Both | Without | Other", int, int, int, int], None]


class Builder:
    """Writes a tree into an automaton."""

    def __init__(
        self,
        unrolled: frozenset[int] | None,
        embedded: Embed,
        once: Mapping[int, tuple[str, ...]],
    ) -> None:
        """`unrolled` are repetitions (their `id`) to be written out, None all of them; `embedded` makes the automata
        of parts that are made by themselves; `once` has the items of each list without repeats that are counted."""
        self.nfa = Nfa()
        self.unrolled, self.embedded, self.once = unrolled, embedded, once
        self.groups = self.lists = 0

    def state(self) -> int:
        """A new state."""
        self.nfa.states += 1
        return self.nfa.states - 1

    def rule(self, rule: Rule) -> int:
        """The number of a new rule."""
        self.nfa.rules.append(rule)
        return len(self.nfa.rules) - 1

    def edge(self, source: int, first: int, last: int, target: int, rules: Rules = ()) -> None:
        """A way with a symbol.

        Raises:
            OptionError: there are too many.
        """
        if len(self.nfa.edges) >= MOST_EDGES:
            raise OptionError("response_format: it is too large: lower its bounds or split it")
        self.nfa.edges.append((source, first, last, target, rules))

    def put(self, node: Node | Other, source: int, target: int, depth: int = 0, bits: int = 0) -> None:
        """Ways from `source` to `target` for every text of a tree.

        Args:
            node: the tree.
            source, target: states.
            depth: fields that are in use around it.
            bits: bits that are.
        """
        if isinstance(node, Text):
            self._text(node.text, source, target)
        elif isinstance(node, Chars):
            self._chars(node, source, target)
        elif isinstance(node, Sequence):
            states = [source, *(self.state() for _ in node.parts[1:]), target]
            if not node.parts:
                self.nfa.jumps.append((source, target, ()))
            for part, begin, end in zip(node.parts, states, states[1:], strict=False):
                self.put(part, begin, end, depth, bits)
        elif isinstance(node, Choice):
            for part in node.parts:
                self.put(part, source, target, depth, bits)
        elif isinstance(node, Repeat):
            self._repeat(node, source, target, depth, bits, lambda *around: self.put(node.part, *around))
        elif isinstance(node, Distinct):
            self._distinct(node, source, target, depth, bits)
        elif isinstance(node, AnyOrder):
            self._any_order(node, source, target, depth, bits)
        else:
            self.embedded(self, node, source, target, depth, bits)

    def _text(self, text: str, source: int, target: int) -> None:
        symbols: list[int] = []
        for character in text:
            mark = ord(character) - FIRST_MARK
            symbols += [BYTES + mark] if 0 <= mark < MARKS else character.encode("utf-8", "surrogatepass")
        states = [source, *(self.state() for _ in symbols[1:]), target]
        if not symbols:
            self.nfa.jumps.append((source, target, ()))
        for symbol, begin, end in zip(symbols, states, states[1:], strict=False):
            self.edge(begin, symbol, symbol, end)

    def _chars(self, node: Chars, source: int, target: int) -> None:
        """Characters whose last bytes are the same share their ends."""
        behind: dict[utf8.Bytes, int] = {(): target}
        for first, last in node.ranges:
            for spelled in utf8.sequences(first, last):
                for place in range(len(spelled) - 1, 0, -1):
                    tail = spelled[place:]
                    if tail not in behind:
                        behind[tail] = self.state()
                        self.edge(behind[tail], *tail[0], behind[tail[1:]])
                self.edge(source, *spelled[0], behind[spelled[1:]])

    def _repeat(
        self, node: Repeat | Distinct, source: int, target: int, depth: int, bits: int, put: Callable[..., None]
    ) -> None:
        if node.most == 0:
            self.nfa.jumps.append((source, target, ()))
            return
        plain = node.least <= 1 and node.most in (None, 1)
        written = max(node.least, node.most or 0)
        small = written * size(node.part, _UNROLLED) <= (_UNROLLED_TEXT if holds_text(node.part) else _UNROLLED)
        uncounted = self.unrolled is None or id(node) in self.unrolled or depth >= FIELDS
        if not plain and (small or uncounted):
            self._written_out(node, source, target, depth, bits, put)
            return
        begin, end = self.state(), self.state()
        if node.least == 0:
            self.nfa.jumps.append((source, target, ()))
        self.nfa.jumps.append((source, begin, ()))
        put(begin, end, depth + (not plain), bits)
        if plain:
            if node.most is None:
                self._again(node.separator, end, begin)
            self.nfa.jumps.append((end, target, ()))
            return
        most = -1 if node.most is None else node.most
        count = self.rule(Rule(Kind.COUNT, depth, node.least, most))
        check = self.rule(Rule(Kind.CHECK, depth, node.least))
        self.nfa.counted[count] = self.nfa.counted[check] = id(node)
        after = self.state()
        self.nfa.jumps.append((end, after, (count,)))
        self._again(node.separator, after, begin)
        self.nfa.jumps.append((after, target, (check,)))

    def _again(self, separator: Node | None, source: int, target: int) -> None:
        if separator is None:
            self.nfa.jumps.append((source, target, ()))
        else:
            self.put(separator, source, target, FIELDS, BITS)

    def _written_out(
        self, node: Repeat | Distinct, source: int, target: int, depth: int, bits: int, put: Callable[..., None]
    ) -> None:
        times = max(1, node.least, node.most or 0)
        if times * size(node.part, MOST_WRITTEN_OUT) > MOST_WRITTEN_OUT:
            raise OptionError(
                f"response_format: it is unclear where one of up to {times} repetitions ends, so they would have to be "
                "written out: lower that bound, or put something behind each that it does not hold itself"
            )
        place = source
        if node.least == 0:
            self.nfa.jumps.append((source, target, ()))
        for time in range(times):
            begin = place
            if time and node.separator is not None:
                begin = self.state()
                self.put(node.separator, place, begin, FIELDS, BITS)
            place = self.state()
            if time == 0:
                # A state of its own: what leads back must not lead to what stands before.
                begin = self.state()
                self.nfa.jumps.append((source, begin, ()))
            put(begin, place, depth, bits)
            if time + 1 >= node.least:
                self.nfa.jumps.append((place, target, ()))
        if node.most is None:
            again = self.state()
            self._again(node.separator, place, again)
            put(again, place, depth, bits)

    def _distinct(self, node: Distinct, source: int, target: int, depth: int, bits: int) -> None:
        """A repeat whose items are told apart where they are read; those that were met twice are counted."""
        number, self.lists = self.lists, self.lists + 1
        texts = self.once.get(number, ())
        counted = texts[:MOST_COUNTED]
        if bits + len(counted) > BITS:
            raise OptionError("uniqueItems: lists without repeats nest too deeply")
        clear = ((1 << len(counted)) - 1) << bits
        opened = (self.rule(Rule(Kind.OPEN, group=number)),)
        closed = (self.rule(Rule(Kind.CLOSE, group=number)),)
        left = self.rule(Rule(Kind.LEAVE, group=number)), self.rule(Rule(Kind.REQUIRE, clear=clear, always=True))

        def put(begin: int, end: int, depth: int, bits: int) -> None:
            inside, behind = self.state(), self.state()
            self.nfa.jumps += [(begin, inside, opened), (behind, end, closed)]
            # However often the part is written, the lists in it are the same.
            self.lists = first
            rules = tuple(
                self.rule(Rule(Kind.SET, bits + place, group=~number, always=True)) for place in range(len(counted))
            )
            part = Other(node.part, rules, texts) if texts else node.part
            self.put(part, inside, behind, depth, bits + len(counted))

        leaving, first = self.state(), self.lists
        self._repeat(node, source, leaving, depth, bits, put)
        self.nfa.jumps.append((leaving, target, left))

    def _any_order(self, node: AnyOrder, source: int, target: int, depth: int, bits: int) -> None:
        if bits + len(node.fields) > BITS:
            raise OptionError(f"at most {BITS} arguments in any order can be held: declare fewer")
        begin, end = self.state(), self.state()
        self.nfa.jumps.append((source, begin, ()))
        if not node.required:
            self.nfa.jumps.append((source, target, ()))
        inner = bits + len(node.fields)
        self.groups += 1
        group = self.groups
        need = sum(1 << (bits + place) for place in node.required)
        clear = ((1 << len(node.fields)) - 1) << bits
        for place, (key, value) in enumerate(node.fields):
            named, opened = self.state(), self.state()
            self.put(key, begin, named, FIELDS, BITS)
            self.nfa.jumps.append((named, opened, (self.rule(Rule(Kind.SET, bits + place, group=group)),)))
            self.put(value, opened, end, depth, inner)
        self.put(node.separator, end, begin, FIELDS, BITS)
        self.nfa.jumps.append((end, target, (self.rule(Rule(Kind.REQUIRE, need=need, clear=clear, group=group)),)))
