"""What every pair of texts keeps to."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from redraft.eval.text import contains, exact_match, fold, token_f1, tokens

# Few words, so that texts have some in common; and anything.
TEXTS = st.one_of(
    st.lists(st.sampled_from(["a", "B", "ß", "the", "The,", "東京", "?", "ﬁ", "1.5"]), max_size=8).map(" ".join),
    st.text(),
)


@given(TEXTS, TEXTS)
def test_symmetry_and_range(one, other):
    assert 0 <= token_f1(one, other) <= 1
    assert token_f1(one, other) == token_f1(other, one)


@given(TEXTS)
def test_a_text_is_itself_however_it_is_written(text):
    assert token_f1(text, text) == contains(text, text) == exact_match(text, text) == 1
    assert exact_match(text, f"\n {fold(text)} \t") == 1


@given(TEXTS, TEXTS, st.integers())
def test_the_order_of_words_is_nothing_to_f1(one, other, seed):
    shuffled = tokens(other)
    random.Random(seed).shuffle(shuffled)
    assert token_f1(one, " ".join(shuffled)) == token_f1(one, other)


@given(TEXTS, TEXTS, TEXTS)
def test_what_stands_there_is_found(before, text, after):
    if tokens(text):
        assert contains(text, f"{before} {text} {after}") == 1


@given(TEXTS, TEXTS)
def test_f1_is_zero_without_a_common_token_and_one_with_the_same(one, other):
    bags = sorted(tokens(one)), sorted(tokens(other))
    assert (token_f1(one, other) == 1) == (bags[0] == bags[1])
    assert (token_f1(one, other) > 0) == bool(set(bags[0]) & set(bags[1]) or bags == ([], []))


@given(TEXTS, TEXTS)
def test_an_exact_match_is_contained_and_has_all_tokens(one, other):
    if exact_match(one, other):
        assert contains(one, other) == token_f1(one, other) == 1
