"""Regular expressions as automata over bytes and over mini's tokens."""

from __future__ import annotations

import re

import numpy as np
import pytest

from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import DEAD, TokenAutomaton
from redraft.core.errors import OptionError
from redraft.text.byte_automaton import ByteAutomaton, behind, either, minimal, symbols
from redraft.text.bytes_of_tokens import marks_of, token_bytes
from redraft.text.once import Once, parts, restricted
from redraft.text.pattern import compile_pattern
from redraft.text.token_automaton import token_automaton
from redraft.text.tokenizer import Tokenizer
from schemas import random_tokens

TOKENIZER = Tokenizer.from_directory(BUNDLED / "mini")
MARKS = marks_of(TOKENIZER, ("<|tool_call>", "<tool_call|>", '<|"|>'))
TOKENS = token_bytes(TOKENIZER, MARKS)
ENDS = TOKENIZER.end_of_turn_ids()
PAD, EOS = TOKENIZER.id_of("<pad>"), TOKENIZER.id_of("<eos>")


def takes(automaton: ByteAutomaton, text: str) -> bool:
    state = automaton.start
    for symbol in symbols(text):
        state = automaton.next[state, symbol]
        if state == DEAD:
            return False
    return bool(automaton.final[state])


def over_tokens(pattern: str) -> TokenAutomaton:
    return token_automaton(compile_pattern(pattern), TOKENS, ENDS, PAD, EOS)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("(xay)*", ["", "xay", "xayxay"], ["xa", "xayx"]),
        ("(ab)+", ["ab", "abab"], ["", "aba"]),
        ("a{2,3}é?", ["aa", "aaaé"], ["a", "aé"]),
        ("[^a]*", ["", "bc\n", "漢"], ["a", "ba"]),
        ("a|(b)", ["a", "b"], ["ab"]),
    ],
)
def test_a_pattern_matches_whole_texts(pattern, yes, no):
    automaton = compile_pattern(pattern)
    assert [takes(automaton, text) for text in yes] == [True] * len(yes)
    assert [takes(automaton, text) for text in no] == [False] * len(no)


@pytest.mark.parametrize("pattern", ["(a", "a)|(b", "[z-a]", r"(?=a)b", r"\p{Nonsense}"])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(OptionError, match="pattern"):
        compile_pattern(pattern)


def test_a_pattern_without_any_text_is_refused():
    with pytest.raises(OptionError, match="no text"):
        restricted(compile_pattern("xaay"), Once("x", ("a",), "y", "q", False))


def test_only_the_special_token_is_a_mark():
    mark = MARKS['<|"|>']
    anything = compile_pattern(f"((?s:.)|{mark})*")
    assert takes(anything, mark)
    assert not takes(anything, MARKS["<|tool_call>"]), "the pattern does not name this one"
    bare = anything
    state = bare.start
    for byte in mark.encode():
        state = bare.next[state, byte] if state != DEAD else DEAD
    assert state == DEAD, "bytes that spell the mark are no mark"
    assert takes(anything, "\uf8ff"), "the rest of the private use area is ordinary text"


@pytest.mark.parametrize("required", [False, True])
def test_a_rule_counts_between_opening_and_closing(required):
    ruled = restricted(compile_pattern("(x(aa:|ab:|b:)*y)*"), Once("x", ("aa:", "ab:"), "y", "q", required))
    assert takes(ruled, "xaa:b:yxab:y")
    assert not takes(ruled, "xaa:ab:y")
    assert not takes(ruled, "xaa:b:b:aa:y")
    assert takes(ruled, "xb:y") is not required
    assert takes(ruled, "")


def test_a_rule_counts_neither_strings_nor_what_is_nested():
    rule = Once("o{", ("{a:", ",a:", "{qbqa:", ",qbqa:"), "y", "q", True)
    ruled = restricted(compile_pattern("o(?s:.)*y"), rule)
    good = ["o{a:1}y", "o{b:q,a:q,a:{a:[{a:1}]}}y", "o{qbqa:qq}y", "o{a:[{c:q}q,a:1}],d:q,a:q}y"]
    bad = ["o{b:q,a:q}y", "o{b:{a:1}}y", "o{a:1,a:2}y", "o{a:{a:1},a:2}y", "o{a:qq,qbqa:1}y", "o{}y"]
    assert [text for text in good if not takes(ruled, text)] == []
    assert [text for text in bad if takes(ruled, text)] == []
    for text in (*good, *bad):
        found = sum(parts(text[1:-1], "q").count(item) for item in rule.items)
        assert (found == 1) == (text in good), text


def test_languages_are_joined_by_their_first_symbol():
    both = either(compile_pattern("(ab)*c"), compile_pattern("x+"))
    assert [takes(both, text) for text in ("ababc", "c", "xx", "", "abx")] == [True, True, True, False, False]
    after = behind(compile_pattern("<[^>]*>"), compile_pattern("(ab)*"))
    assert [takes(after, text) for text in ("<q>", "<>abab", "ab", "<q>a")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("pattern", "states"),
    [("(aa|ab|ba|bb)*", 2), ("x{40}", 41), ("(a|b)*a(a|b){2}", 8), ("(one|two|six) (one|two|six)", 16)],
)
def test_automata_have_no_state_too_many(pattern, states):
    assert len(compile_pattern(pattern).next) == states


def test_automata_over_the_same_texts_are_equal():
    again = minimal(restricted(compile_pattern("(x(a|b)*y)*"), Once("x", ("a",), "y", "q", False)))
    plain = compile_pattern("(xb*(ab*)?y)*")
    assert len(again.next) == len(plain.next)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        text = "".join(rng.choice(list("xaby"), size=rng.integers(0, 9)))
        assert takes(again, text) == takes(plain, text) == bool(re.fullmatch("(xb*(ab*)?y)*", text)), text


def test_a_pattern_that_repeats_too_much_is_refused():
    with pytest.raises(OptionError, match="repeats too much"):
        compile_pattern("(a{200}){1000}")


PATTERNS = [
    r"\{\"name\": ?\"[^\"\\\x00-\x1f]{1,12}\", \"age\": [1-9][0-9]{0,2}\}",
    r"(yes|no|maybe not)",
    r"[A-Z][a-z]+( [a-z]+){2,5}\.\n- (eins|zwei|drei)",
    r"(\+|-)?[0-9]+(\.[0-9]+)?",
    r"[äöü漢字😀]{1,6} end",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_tokens_spell_matches(pattern):
    automaton = over_tokens(pattern)
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
    automaton = over_tokens(pattern)
    state = automaton.advance(automaton.start, TOKENIZER.encode(text))
    assert state != DEAD
    assert automaton.accepting[state]
    assert automaton.shortest[automaton.start] <= len(TOKENIZER.encode(text))


def test_marks_are_read_in_calls():
    o, c, q = (MARKS[token] for token in ("<|tool_call>", "<tool_call|>", '<|"|>'))
    automaton = over_tokens(f"{o}call:PlayMusic\\{{artist:{q}[^\ue000-\ue0ff]*{q}\\}}{c}")
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
    automaton = over_tokens("yes")
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
