"""Automata over tokens against their definition: every state and token of them, on a tokenizer with two contexts."""

from __future__ import annotations

import numpy as np
import pytest

from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import DEAD, TokenAutomaton
from redraft.text.bytes_of_tokens import marks_of, token_bytes
from redraft.text.grammar.compile import compiled
from redraft.text.grammar.expansion import expanded
from redraft.text.grammar.nodes import AnyOrder, Chars, Choice, Distinct, Node, Repeat, Sequence, Text
from redraft.text.grammar.reference import counted_out
from redraft.text.grammar.spelling import spelled
from redraft.text.native import library
from redraft.text.token_automaton import token_automaton
from redraft.text.tokenizer import Tokenizer
from redraft.text.vocabulary import Vocabulary

TOKENIZER = Tokenizer.from_directory(BUNDLED / "mini")
MARKS = marks_of(TOKENIZER, ("<|tool_call>", "<tool_call|>", '<|"|>'))
VOCABULARY = Vocabulary.of(token_bytes(TOKENIZER, MARKS))
ENDS, PAD, EOS = list(TOKENIZER.end_of_turn_ids()), TOKENIZER.id_of("<pad>"), TOKENIZER.id_of("<eos>")

LETTERS, DIGITS = Chars(((0x61, 0x7A),)), Chars(((0x30, 0x39),))
PLAIN = Chars(((0x20, 0x21), (0x23, 0x5B), (0x5D, 0xD7FF), (0xE100, 0x10FFFF)))
CHARACTER = Choice((PLAIN, Sequence((Text("\\"), Chars(((0x22, 0x22), (0x5C, 0x5C), (0x6E, 0x6E), (0x74, 0x74)))))))
QUOTE = MARKS['<|"|>']
FREE = Repeat(Chars(((0, 0xD7FF), (0xE100, 0x10FFFF))))
NUMBER = Sequence((Chars(((0x31, 0x39),)), Repeat(DIGITS, 0, 14)))


def string(least: int = 0, most: int | None = None) -> Node:
    return Sequence((Text('"'), Repeat(CHARACTER, least, most), Text('"')))


def call(name: str, *fields: tuple[str, Node], required: frozenset[int]) -> Node:
    pairs = tuple((Text(f"{key}:"), value) for key, value in fields)
    opened, closed = Text(f"{MARKS['<|tool_call>']}call:{name}{{"), Text("}" + MARKS["<tool_call|>"])
    return Sequence((opened, AnyOrder(pairs, required, Text(",")), closed))


QUOTED = Sequence((Text(QUOTE), FREE, Text(QUOTE)))
CALLS = Choice(
    (
        call("Play", ("artist", QUOTED), ("year", NUMBER), ("mood", QUOTED), required=frozenset({0})),
        call("Rate", ("points", DIGITS), ("of", NUMBER), required=frozenset({0, 1})),
    )
)
TREES = {
    "a number": NUMBER,
    "a string": string(),
    "a short string": string(0, 5),
    "a long string": string(7),
    "a bounded string": string(0, 90),
    "a list": Sequence((Text("["), Repeat(string(2, 9), 1, 70, Text(",")), Text("]"))),
    "calls": Sequence((FREE, Repeat(Repeat(CALLS, 1), 0, 1))),
    "words": Sequence((Repeat(LETTERS, 3, 60), Text("."))),
    "two alphabets": Sequence((Repeat(Choice((LETTERS, DIGITS))), Text(" "), Repeat(LETTERS, 0, 100), Text(";"))),
    "different items": Sequence((Text("["), Distinct(NUMBER, 1, 9, Text(",")), Text("]"))),
}


def difference(one: TokenAutomaton, other: TokenAutomaton) -> str:
    """What tells two automata apart; empty where they are the same but for the numbers of their states."""
    twin, queue = {one.start: other.start}, [one.start]

    def row(automaton: TokenAutomaton, state: int) -> np.ndarray:
        return np.append(automaton.following(state), DEAD)[automaton.class_of]

    for state in queue:
        if one.accepting[state] != other.accepting[twin[state]]:
            return f"state {state} accepts in one of them"
        if one.shortest[state] != other.shortest[twin[state]]:
            return f"state {state} is {one.shortest[state]} and {other.shortest[twin[state]]} tokens from an end"
        left, right = row(one, state), row(other, twin[state])
        if differing := np.flatnonzero((left == DEAD) != (right == DEAD)).tolist():
            return f"{TOKENIZER.text_of(differing[0])!r} is taken by one of them in state {state}"
        for target, mirrored in set(zip(left.tolist(), right.tolist(), strict=True)) - {(DEAD, DEAD)}:
            if target not in twin:
                twin[target] = mirrored
                queue.append(target)
            elif twin[target] != mirrored:
                return f"state {target} is two states of the other"
    return ""


needs_compiler = pytest.mark.skipif(library("expand") is None, reason="no compiler")


@needs_compiler
@pytest.mark.parametrize("held", [False, True], ids=["nothing held", "all held"])
@pytest.mark.parametrize("name", TREES)
def test_an_automaton_is_its_definition(name, held):
    core = compiled(TREES[name], {0: ("17", "4")})
    enabled = np.array([held or rule.always for rule in core.rules], np.uint8)
    got = expanded(spelled(core, VOCABULARY), core, VOCABULARY, enabled, ENDS, PAD, EOS)
    assert difference(got, token_automaton(counted_out(core, enabled), VOCABULARY.readings, ENDS, PAD, EOS)) == ""


@needs_compiler
def test_what_tells_automata_apart_is_seen():
    """The comparison itself: a string of up to five characters is none of up to six."""
    automata = []
    for most in (5, 6):
        core = compiled(string(0, most))
        enabled = np.ones(len(core.rules), np.uint8)
        automata.append(expanded(spelled(core, VOCABULARY), core, VOCABULARY, enabled, ENDS, PAD, EOS))
    assert difference(*automata)


@needs_compiler
def test_a_token_that_ends_a_turn_is_no_text():
    """Even where the vocabulary reads it as some: here the token of a letter."""
    letter = TOKENIZER.id_of("x")
    core = compiled(Repeat(LETTERS))
    enabled = np.zeros(0, np.uint8)
    got = expanded(spelled(core, VOCABULARY), core, VOCABULARY, enabled, [letter], None, letter)
    assert got.advance(got.start, [letter]) == got.done
    assert got.advance(got.start, TOKENIZER.encode("a")) not in (DEAD, got.done)


@needs_compiler
def test_what_is_not_counted_takes_no_states():
    core = compiled(string(0, 2000))
    spelling = spelled(core, VOCABULARY)
    sizes = [
        expanded(spelling, core, VOCABULARY, np.full(len(core.rules), on, np.uint8), ENDS, PAD, EOS).num_states
        for on in (0, 1)
    ]
    assert sizes[0] < 30
    assert sizes[1] > 2000
