"""Options by their own text: one automaton over tokens in which each option has states of its own where it is whole.

The options are a tree of bytes, and a state is a place in it: however many options there are, and though one may be
where another begins, a place tells which of them has been written. Every way to spell an option in tokens is a path.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redraft.core.checks import shown
from redraft.core.errors import QuestionError
from redraft.core.reads import Texts
from redraft.decide.text_automaton import automaton_of, distances
from redraft.text.grammar.nfa import BYTES
from redraft.text.grammar.words import symbols
from redraft.text.sorted_spellings import MARK, sorted_spellings

if TYPE_CHECKING:
    from redraft.decide.known import Known
    from redraft.text.constraint import ConstraintFactory

# Places in the tree of all options, and tokens on all edges.
MOST_PLACES, MOST_TOKENS = 50_000, 2_000_000
_FIELD = "choices"


def texts_of(known: Known, options: Sequence[str], *, open_end: bool, part: str = _FIELD) -> Texts:
    """Options of any number of tokens, told apart.

    Args:
        known: the model.
        options: their texts.
        open_end: whether they are what a reply begins with, and anything may follow: a token may then go on beyond an
            option's end, and markers such as `<|tool_call>` are read as such. Else an option is the whole reply, and
            what it spells is text.
        part: of the question, what an error calls them.

    Raises:
        QuestionError: an option that no tokens can spell or that no canvas holds, one that is there twice or, with an
            open end, begins another, or too much text in all.
    """
    ends = tuple(dict.fromkeys((known.end_id, *known.end_ids)))
    if not all(isinstance(option, str) for option in options):
        raise QuestionError(part, "by their own text must be texts")
    try:
        return _made(known.constraints(), tuple(options), open_end, ends, known.pad_id, known.canvas_length)
    except QuestionError as error:
        raise QuestionError(part, error.reason) from None


# Many states are asked the same, and 255 options take a tenth of a second.
@functools.lru_cache(maxsize=16)
def _made(
    factory: ConstraintFactory, options: tuple[str, ...], open_end: bool, ends: tuple[int, ...], pad: int, length: int
) -> Texts:
    tree = _Tree()
    for option in options:
        place = tree.add(_bytes_of(option, factory if open_end else None))
        if len(tree.below) > MOST_PLACES:
            raise QuestionError(_FIELD, f"hold too much text in all: more than {MOST_PLACES} bytes that differ")
        if place == 0:
            raise QuestionError(_FIELD, "hold an empty text")
        if place in tree.whole:
            raise QuestionError(_FIELD, f"hold {shown(option)} twice, as text")
        tree.whole.add(place)
        tree.ends.append(place)
    if open_end:
        _check_apart(options, tree)
    walk = _Walk(tree, factory, frozenset((*ends, pad)), open_end)
    whole = [walk.at.get(end, []) for end in tree.ends]
    far = distances(walk.edges, [0], len(walk.states))
    for option, states in zip(options, whole, strict=True):
        fewest = min((far[state] for state in states), default=None)
        if fewest is None:
            raise QuestionError(_FIELD, f"hold {shown(option)}, which this model's tokens cannot spell")
        if 0 < length < fewest:
            raise QuestionError(_FIELD, f"hold {shown(option)}, which takes {fewest} tokens: a canvas has {length}")
    accepting = sorted({state for states in whole for state in states})
    automaton, number = automaton_of(walk.edges, accepting, len(walk.states), factory.vocab_size, pad)
    return Texts(
        automaton=automaton,
        whole=tuple(tuple(number[state] for state in states) for states in whole),
        end_ids=() if open_end else ends,
        fill_ids=() if open_end else tuple(dict.fromkeys((pad, *ends))),
    )


def _bytes_of(option: str, factory: ConstraintFactory | None) -> bytes:
    """An option's bytes; with a factory, its markers as `sorted_spellings` writes them."""
    parts = [option]
    if factory is not None and factory.marks:
        parts = re.split("(" + "|".join(map(re.escape, factory.marks)) + ")", option)
    try:
        # What lies between two markers is text, even where it looks like the mark of one.
        return b"".join(
            bytes([MARK, symbols(factory.marks[part])[0] - BYTES])
            if factory is not None and number % 2
            else part.encode()
            for number, part in enumerate(parts)
        )
    except UnicodeEncodeError:
        raise QuestionError(_FIELD, f"hold {shown(option)}, which is no text") from None


def _check_apart(options: Sequence[str], tree: _Tree) -> None:
    for option, end in zip(options, tree.ends, strict=True):
        if not tree.below[end]:
            continue
        behind = tree.behind(end)
        other = next(o for o, place in zip(options, tree.ends, strict=True) if place in behind)
        raise QuestionError(
            _FIELD, f"hold {shown(option)}, which {shown(other)} begins with: a reply could begin with both"
        )


@dataclass(eq=False)
class _Tree:
    """Options byte by byte.

    Attributes:
        below: of each place, the places behind each byte.
        whole: places in which an option ends.
        ends: of each option, where it does.
    """

    below: list[dict[int, int]] = field(default_factory=lambda: [{}])
    whole: set[int] = field(default_factory=set)
    ends: list[int] = field(default_factory=list)

    def add(self, text: bytes) -> int:
        """The place behind a text, made where it is new."""
        place = 0
        for byte in text:
            following = self.below[place].get(byte)
            if following is None:
                following = len(self.below)
                if following > MOST_PLACES:
                    break
                self.below[place][byte] = following
                self.below.append({})
            place = following
        return place

    def behind(self, place: int) -> set[int]:
        """All that lies behind a place."""
        found = list(self.below[place].values())
        for reached in found:
            found += self.below[reached].values()
        return set(found)


class _Walk:
    """The tokens that lead from place to place, found from the start on.

    Attributes:
        states: (place, whether a segment or a line starts there) each; with an open end, an option's place is also
            where a token has gone on beyond it.
        at: the states of each place.
        edges: the tokens from state to state.
    """

    def __init__(self, tree: _Tree, factory: ConstraintFactory, barred: frozenset[int], open_end: bool) -> None:
        self._tree, self._open_end, self._barred = tree, open_end, barred
        self._spellings = sorted_spellings(factory.vocabulary)
        self._opens = factory.vocabulary.opens.astype(bool).tolist()
        self._number: dict[tuple[int, bool], int] = {(0, True): 0}
        self.states: list[tuple[int, bool]] = [(0, True)]
        self.at: dict[int, list[int]] = {0: [0]}
        self.edges: dict[tuple[int, int], list[int]] = {}
        self._tokens = 0
        for state, (place, at_start) in enumerate(self.states):
            # Where the end is open, nothing leads on from an option that is whole.
            if not (open_end and place in tree.whole):
                self._leave(state, place, at_start)

    def _leave(self, state: int, place: int, at_start: bool) -> None:
        """Every token that may stand in a state."""
        found = self._spellings[int(at_start)]
        # (place, what was spelled on the way there, the tokens that begin so)
        ways: list[tuple[int, bytes, int, int]] = [(place, b"", 0, len(found.texts))]
        while ways:
            reached, text, first, last = ways.pop()
            beyond = self._open_end and reached in self._tree.whole
            for rank in range(first, last):
                if not beyond and found.texts[rank] != text:
                    break
                token = found.tokens[rank]
                self._edge(state, (reached, self._opens[token]), token)
            for byte, following in self._tree.below[reached].items():
                further = text + bytes([byte])
                begin, end = found.beginning(further, first, last)
                if begin < end:
                    ways.append((following, further, begin, end))

    def _edge(self, state: int, behind: tuple[int, bool], token: int) -> None:
        if token in self._barred:
            return
        target = self._number.setdefault(behind, len(self.states))
        if target == len(self.states):
            self.states.append(behind)
            self.at.setdefault(behind[0], []).append(target)
        self.edges.setdefault((state, target), []).append(token)
        self._tokens += 1
        if self._tokens > MOST_TOKENS:
            raise QuestionError(_FIELD, "can be spelled in too many ways: leave some out, or shorten them")
