"""Regular expressions as automata over bytes and over mini's tokens."""

from __future__ import annotations

import re

import numpy as np
import pytest

from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import DEAD, TokenAutomaton
from redraft.core.errors import OptionError
from redraft.text.bytes_of_tokens import marks_of, token_bytes
from redraft.text.grammar.compile import compiled
from redraft.text.grammar.nodes import Chars, Repeat, Sequence, Text, Without
from redraft.text.grammar.reference import counted_out
from redraft.text.grammar.regex import whole
from redraft.text.token_automaton import token_automaton
from redraft.text.tokenizer import Tokenizer
from schemas import random_tokens
from taken import takes

TOKENIZER = Tokenizer.from_directory(BUNDLED / "mini")
MARKS = marks_of(TOKENIZER, ("<|tool_call>", "<tool_call|>", '<|"|>'))
TOKENS = token_bytes(TOKENIZER, MARKS)
ENDS = TOKENIZER.end_of_turn_ids()
PAD, EOS = TOKENIZER.id_of("<pad>"), TOKENIZER.id_of("<eos>")
FREE = Repeat(Chars(((0, 0xD7FF), (0xE100, 0x10FFFF))))


def over_tokens(node) -> TokenAutomaton:
    core = compiled(node)
    return token_automaton(counted_out(core, np.ones(len(core.rules), np.uint8)), TOKENS, ENDS, PAD, EOS)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("(xay)*", ["", "xay", "xayxay"], ["xa", "xayx"]),
        ("(ab)+", ["ab", "abab"], ["", "aba"]),
        ("a{2,3}é?", ["aa", "aaaé"], ["a", "aé"]),
        ("[^a]*", ["", "bc\n", "漢"], ["a", "ba"]),
        ("a|(b)", ["a", "b"], ["ab"]),
        ("(ab){3,70}c", ["abababc", "ab" * 70 + "c"], ["ababc", "ab" * 71 + "c"]),
        ("[ab]{60,90}a", ["b" * 60 + "a", "a" * 91], ["b" * 59 + "a", "a" * 92, "b" * 61]),
        ("(a|b)*a(a|b){2}", ["abb", "bbabb", "aaa"], ["bbb", "ab", "abbb"]),
    ],
)
def test_a_pattern_matches_whole_texts(pattern, yes, no):
    core = compiled(whole(pattern))
    assert [takes(core, text) for text in yes] == [True] * len(yes)
    assert [takes(core, text) for text in no] == [False] * len(no)


def test_a_tree_without_any_text_is_refused():
    with pytest.raises(OptionError, match="no text"):
        compiled(Without(Text("xay"), ("a",)))


def test_only_the_special_token_is_a_mark():
    mark = MARKS['<|"|>']
    anything = compiled(Sequence((FREE, Text(mark), FREE)))
    assert takes(anything, f"a{mark}b")
    assert not takes(anything, MARKS["<|tool_call>"]), "the tree does not name this one"
    state = anything.start
    for byte in mark.encode():
        state = anything.next[state, anything.kind[byte]] if state != DEAD else DEAD
    assert state == DEAD, "bytes that spell the mark are no mark"
    assert takes(anything, f"\uf8ff{mark}"), "the rest of the private use area is ordinary text"


def test_words_are_barred_wherever_they_are_spelled():
    free = compiled(Without(FREE, ("<|x|>", "<|y")))
    for text in ("", "<|", "<|<|", "x|>", "<|x|", "é<|漢"):
        assert takes(free, text), text
    for text in ("<|x|>", "a<|<|x|>b", "<|y", "<|x|y<|x|>"):
        assert not takes(free, text), text


PATTERNS = [
    r"\{\"name\": ?\"[^\"\\\x00-\x1f]{1,12}\", \"age\": [1-9][0-9]{0,2}\}",
    r"(yes|no|maybe not)",
    r"[A-Z][a-z]+( [a-z]+){2,5}\.\n- (eins|zwei|drei)",
    r"(\+|-)?[0-9]+(\.[0-9]+)?",
    r"[äöü漢字😀]{1,6} end",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_tokens_spell_matches(pattern):
    automaton = over_tokens(whole(pattern))
    rng = np.random.default_rng(0)
    for _ in range(60):
        tokens = random_tokens(automaton, rng)
        text = TOKENIZER.decode(token for token in tokens if token not in ENDS)
        assert re.fullmatch(pattern, text, re.DOTALL), text
        assert automaton.advance(automaton.start, [*tokens, EOS, PAD, EOS]) == automaton.done


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (PATTERNS[0], '{"name": "Nina", "age": 42}'),
        (PATTERNS[1], "maybe not"),
        (PATTERNS[2], "Play some jazz.\n- zwei"),
        (PATTERNS[4], "漢ä😀 end"),
    ],
)
def test_the_tokenizers_own_spelling_is_taken(pattern, text):
    automaton = over_tokens(whole(pattern))
    state = automaton.advance(automaton.start, TOKENIZER.encode(text))
    assert state != DEAD
    assert automaton.accepting[state]
    assert automaton.shortest[automaton.start] <= len(TOKENIZER.encode(text))


def test_marks_are_read_in_calls():
    o, c, q = (MARKS[token] for token in ("<|tool_call>", "<tool_call|>", '<|"|>'))
    automaton = over_tokens(Sequence((Text(f"{o}call:PlayMusic{{artist:{q}"), FREE, Text(f"{q}}}{c}"))))
    good = TOKENIZER.encode('<|tool_call>call:PlayMusic{artist:<|"|>Nina Simone<|"|>}<tool_call|>')
    assert automaton.accepting[automaton.advance(automaton.start, good)]
    bad = TOKENIZER.encode('<|tool_call>call:PlayMusic{artist:"Nina Simone"}<tool_call|>')
    assert automaton.advance(automaton.start, bad) == DEAD
    rng = np.random.default_rng(1)
    for _ in range(30):
        text = TOKENIZER.decode(random_tokens(automaton, rng))
        assert text.startswith('<|tool_call>call:PlayMusic{artist:<|"|>')
        assert text.count('<|"|>') == 2


def test_end_of_turn_only_behind_a_whole_text():
    automaton = over_tokens(Text("yes"))
    assert automaton.advance(automaton.start, [ENDS[0]]) == DEAD
    assert automaton.advance(automaton.start, [PAD]) == DEAD
    assert automaton.advance(automaton.start, [*TOKENIZER.encode("yes"), ENDS[0]]) == automaton.done


def test_a_table_and_its_edges_say_the_same():
    rng = np.random.default_rng(3)
    table = np.where(rng.random((9, 14)) < 0.4, rng.integers(0, 4, (9, 14)), DEAD).astype(np.int32)
    table[5] = DEAD
    automaton = TokenAutomaton.of_table(
        rng.integers(DEAD, 14, 50).astype(np.int32),
        table,
        start=0,
        accepting=np.ones(9, bool),
        done=8,
        shortest=np.zeros(9, np.int32),
        fill=0,
    )
    np.testing.assert_array_equal(np.stack([automaton.following(state) for state in range(9)]), table)
    for state in range(9):
        for token, kind in enumerate(automaton.class_of):
            assert automaton.advance(state, [token]) == (DEAD if kind == DEAD else table[state, kind])
    pairs = list(zip(automaton.edges.source, automaton.edges.target, strict=True))
    assert len(set(pairs)) == len(pairs), "what leads from a state to another is one edge"
    assert not automaton.is_complete(0)
    assert automaton.is_complete(5)
