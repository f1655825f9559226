"""Several languages in one automaton over tokens, in which each text tells whose it is.

Behind the texts of each language stands a mark of its own that no model has a token for, so that a state knows of which
languages it may still be one. The automaton is then made of a vocabulary that has such tokens, and they are cut off.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from redraft.core.automaton import DEAD, Edges, TokenAutomaton
from redraft.text.constraint import ConstraintFactory
from redraft.text.grammar.build import any_of, sequence
from redraft.text.grammar.compile import compiled
from redraft.text.grammar.expansion import expanded
from redraft.text.grammar.nfa import BYTES
from redraft.text.grammar.nodes import FIRST_MARK, MARKS, Node, Text
from redraft.text.grammar.reference import counted_out
from redraft.text.grammar.spelling import spelled
from redraft.text.native import library
from redraft.text.token_automaton import token_automaton
from redraft.text.vocabulary import Spellings, Vocabulary

UNDECIDED = -2


@dataclass(frozen=True, eq=False)
class Labelled:
    """Languages that exclude each other.

    Attributes:
        automaton: of all of them, up to where their texts are whole.
        whole: of each language, the states in which a text of it is.
        label: [S] of which one the states are; `UNDECIDED` where it may be several.
    """

    automaton: TokenAutomaton
    whole: tuple[tuple[int, ...], ...]
    label: NDArray[np.int64]


def labelled(factory: ConstraintFactory, head: Node, languages: Sequence[Node]) -> Labelled:
    """The automaton of languages, at most 250 of them, in which nothing is counted that can be left open.

    Args:
        factory: of the model.
        head: what all of them begin with.
        languages: what each goes on with.

    Raises:
        OptionError: they are too large.
    """
    tags = [chr(FIRST_MARK + MARKS - 1 - number) for number in range(len(languages))]
    assert len(tags) <= MARKS - len(factory.marks)
    ends = any_of(sequence([part, Text(tag)]) for part, tag in zip(languages, tags, strict=True))
    core = compiled(sequence([head, ends]))
    vocabulary = _with_tags(factory.vocabulary, len(tags))
    enabled = np.array([rule.always for rule in core.rules], np.uint8)
    behind = (factory.end_ids, factory.pad_id, factory.fill)
    if all(library(name) is not None for name in ("tree", "spell", "expand")):
        made = expanded(spelled(core, vocabulary), core, vocabulary, enabled, *behind)
    else:
        made = token_automaton(counted_out(core, enabled), vocabulary.readings, *behind)
    whole = _whole(made, factory.vocab_size, len(tags))
    automaton = _without_tags(made, factory.vocab_size, whole)
    return Labelled(automaton, whole, _labels(automaton, whole))


@functools.lru_cache(maxsize=4)
def _with_tags(vocabulary: Vocabulary, count: int) -> Vocabulary:
    """The vocabulary and a token for each of the last marks."""
    marked = BYTES + MARKS - 1 - np.arange(count)

    def more(spellings: Spellings) -> Spellings:
        begin = np.r_[spellings.begin, np.full(count, spellings.begin[-1])]
        return Spellings(spellings.data, begin, np.r_[spellings.written, np.zeros(count, np.uint8)])

    return Vocabulary(
        more(vocabulary.inside),
        None if vocabulary.at_start is None else more(vocabulary.at_start),
        np.r_[vocabulary.opens, np.zeros(count, vocabulary.opens.dtype)],
        np.r_[vocabulary.marked, marked].astype(vocabulary.marked.dtype),
    )


def _whole(made: TokenAutomaton, vocab_size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Of each language, the states behind which its tag may stand."""
    found: list[set[int]] = [set() for _ in range(count)]
    number = {int(kind): n for n, kind in enumerate(made.class_of[vocab_size:])}
    edges = made.edges
    of_kind = [
        [number[int(c)] for c in edges.classes(kind) if int(c) in number] for kind in range(len(edges.begins) - 1)
    ]
    for source, kind in zip(edges.source.tolist(), edges.kinds.tolist(), strict=True):
        for tag in of_kind[kind]:
            found[tag].add(source)
    return tuple(tuple(sorted(states)) for states in found)


def _without_tags(made: TokenAutomaton, vocab_size: int, whole: Iterable[Iterable[int]]) -> TokenAutomaton:
    """The automaton up to where texts are whole."""
    edges = made.edges
    ending = np.zeros(made.num_states, np.bool_)
    ending[[state for states in whole for state in states]] = True
    tag_classes = np.unique(made.class_of[vocab_size:])
    tagged = np.array([np.isin(edges.classes(kind), tag_classes).all() for kind in range(len(edges.begins) - 1)])
    # Behind a tag nothing stands but the end.
    behind = np.zeros(made.num_states, np.bool_)
    behind[edges.target[tagged[edges.kinds]]] = True
    behind[made.done] = True
    kept = ~tagged[edges.kinds] & ~behind[edges.source] & ~behind[edges.target]
    kinds, number = np.unique(edges.kinds[kept], return_inverse=True)
    sets = [edges.classes(int(kind)) for kind in kinds]
    classes = np.unique(np.concatenate(sets)) if sets else np.empty(0, np.int64)
    renumbered = np.full(made.num_classes + 1, DEAD, np.int32)
    renumbered[classes] = np.arange(len(classes))
    return TokenAutomaton(
        class_of=np.ascontiguousarray(renumbered[made.class_of[:vocab_size]]),
        num_classes=len(classes),
        edges=Edges(
            source=edges.source[kept],
            target=edges.target[kept],
            kinds=number.reshape(-1).astype(np.int64),
            member=renumbered[np.concatenate(sets)].astype(np.int64),
            begins=np.cumsum([0, *map(len, sets)]),
        ),
        start=made.start,
        accepting=ending,
        done=made.done,
        shortest=np.maximum(made.shortest - 1, 0),
        fill=made.fill,
    )


def _labels(automaton: TokenAutomaton, whole: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """[S] which language a state still is of, back from where each is whole."""
    edges = automaton.edges
    order = np.argsort(edges.target, kind="stable")
    first = np.searchsorted(edges.target[order], np.arange(automaton.num_states + 1)).tolist()
    before = edges.source[order].tolist()
    label: list[int] = [DEAD] * automaton.num_states
    queue = [(state, number) for number, states in enumerate(whole) for state in states]
    while queue:
        state, number = queue.pop()
        joined = number if label[state] in (DEAD, number) else UNDECIDED
        if joined == label[state]:
            continue
        label[state] = joined
        queue += [(source, joined) for source in before[first[state] : first[state + 1]]]
    return np.array(label, np.int64)
