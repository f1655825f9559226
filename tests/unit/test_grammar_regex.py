r"""Patterns as trees: which texts they hold, beside Python's own reading, and what is refused and how."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest

from grammar_matches import matches, some_texts
from redraft.text.grammar import sets
from redraft.text.grammar.anchored import PatternError
from redraft.text.grammar.build import lengths, limited
from redraft.text.grammar.nodes import Both, Repeat
from redraft.text.grammar.regex import anywhere, whole

BLANKS = "\t\n\v\f\r \u00a0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"


@pytest.mark.parametrize(
    "pattern",
    [
        "", "a", "ab|c", "a|b|", "(ab)+", "(?:a|b)*?c", "a{2}", "a{2,}b", "a{,2}b", "a{1,3}?", r"\d+\.\d{2}",
        "[a-c]x", "[^a]",
        "[]a]+", "[a-]", "[-a]", r"[\]\\^]", r"[\d_]", r"[^\W\d]", r"\x41\u00e4", r"\t\n\\", "^ab$", "^a|b$",
        "(^a|b)c", ".",
        "(?s).", "(?i)Ab[c-e]", "(?is)a.b", "(?P<n>a)b", "(?i:a)b", r"\.\*\+\/\-", "a{", "x{,y}", "}", r"\w\s\S\D\W",
        r"\Aab\Z", "((a)|(b))?", "()|a", "(a*)*", "(a|b)(c|)", "(?:(?:a{2}){2}){2}", "[&]",
        "(?i)[^a]", "(?i)straße", "k(?i:k)", "[\u00e0-\u00ff]{2}",
    ],
)  # fmt: skip
def test_whole_texts_are_those_that_python_takes(pattern):
    node, ours = whole(pattern), re.compile(pattern)
    rng = random.Random(pattern)
    for text in some_texts(node, rng, 40):
        assert ours.fullmatch(text), text
        for other in (text[1:], text + "a", text.swapcase(), text[::-1], text + "\n", "é" + text, text * 2):
            assert matches(node, other) <= bool(ours.fullmatch(other)), other
            if other.isascii() and not re.search(r"[\x1c-\x1f]", other):
                assert matches(node, other) == bool(ours.fullmatch(other)), other


@pytest.mark.parametrize(
    "pattern", ["a", "^a", "a$", "^a$", "^a|b$", "(^|,)a", "a($|;)", "^(a|b)$", "(^a)?b", "a|^$", "^", "$"]
)
def test_patterns_are_searched_for(pattern):
    node, ours = anywhere(pattern), re.compile(pattern.replace("$", r"\Z"))
    for text in ("", "a", "b", "ab", "ba", "xa", "ax", "xax", ",a", "x,a", "a;", "a;x", "a,", "bx", "aa", "\n"):
        assert matches(node, text) == bool(ours.search(text)), text


@pytest.mark.parametrize("character", BLANKS)
def test_blanks_are_all_of_unicode(character):
    for ecma in (True, False):
        assert matches(whole(r"\s", ecma=ecma), character)
        assert matches(whole(r"[\s]", ecma=ecma), character)
        assert not matches(whole(r"\S", ecma=ecma), character)
        assert not matches(whole(r"[^\s]", ecma=ecma), character)


def test_readers_who_differ_are_both_right():
    # U+FEFF is a blank in ECMA 262 and none in Python; the others are blanks, digits and letters in Python alone.
    for character, classes in {"\ufeff": "sS", "\x85": "sS", "٣": "dD", "é": "wW"}.items():
        for letter in classes:
            assert not matches(whole(rf"\{letter}", ecma=True), character)
            assert not matches(whole(rf"[^\{letter}]", ecma=True), character)
    assert matches(whole(r"\d\w"), "٣é")


@pytest.mark.parametrize("name", ["L", "Lu", "Letter", "gc=Nd", "P", "Zs", "S", "Cased_Letter"])
def test_general_categories(name):
    inside, outside = whole(rf"\p{{{name}}}", ecma=True), whole(rf"\P{{{name}}}")
    starts = {"Letter": "L", "gc=Nd": "Nd", "Cased_Letter": ("Lu", "Ll", "Lt")}.get(name, name)
    for character in "aÄ5٣ǅʰ漢_-(« \u00a0+€$^\u0301\n😀\U0001d7d8":
        assert matches(inside, character) == unicodedata.category(character).startswith(starts), character
        assert matches(inside, character) != matches(outside, character)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\/\cA\0", "/\x01\0"), (r"\u{1F600}", "😀"), (r"\ud83d\ude00", "😀"), ("a{,2}", "a{,2}"), ("[^]", "x"),
        ("(?<year>[0-9]{4})", "2026"), ("[a-z&&b]", "&"), (r"[\b]", "\b"), (r"[\w-]", "-"),
    ],
)  # fmt: skip
def test_what_ecma_alone_writes(pattern, text):
    assert matches(whole(pattern, ecma=True), text)


@pytest.mark.parametrize(
    ("pattern", "text", "other"),
    [
        ("[a-z&&[^b]]", "c", "b"),
        ("[[:alpha:]_]", "_", "1"),
        ("[[:^digit:]]", "a", "1"),
        (r"\pL", "ä", "1"),
        (r"a\z", "a", "b"),
    ],
)
def test_what_rust_alone_writes(pattern, text, other):
    assert matches(whole(pattern), text)
    assert not matches(whole(pattern), other)


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        ("a(?=a)b", "right behind"), ("(?!a?b)b", "as alternatives"), ("(?<=a)b", "as alternatives"),
        ("(?<!a)b", "alternatives"),
        (r"(a)\1", "write the group's pattern again"), (r"(?<n>a)\k<n>", "write the group's pattern again"),
        (r"\ba", "write the char"),
        ("a(?i)b", "at the beginning"), ("(?x)a", "i and s can"), ("(?m)^a", "i and s can"), ("a++", "leave that"),
        ("a**", "parenthes"),
        ("(", "not closed"), (")", r"\\\)"), ("[a", r"\\\["), ("*a", r"\\\*"), ("a\\", "write"),
        ("[b-a]", "backwards"), (r"\p{Greek}", "Lu"),
        (r"\q", "leave the backslash out"), ("a{3,2}", "smaller"), ("a{1000000}", "100000"),
        ("(" * 60 + ")" * 60, "flatten"),
        ("(^a)+", "before or behind"), ("(?=a)b|c", "parentheses"),
        ("a^b", "no text"), ("\ue001", "leave it out"), ("[\ue001]", "no text"),
        ("a" * 30_000, "20000"),
        ("(?>a)", "write"), ("(?(1)a)", "write"), ("[a--b]", "what is left"), ("[[:odd:]]", "alpha"),
        (r"\ud800", "no character"),
        ("[" * 40 + "]" * 40, "deep"),
    ],
    ids=range(35),
)  # fmt: skip
def test_a_refusal_says_what_to_write_instead(pattern, instead):
    with pytest.raises(PatternError, match=instead):
        whole(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$",
        r"^(?=.*[A-Z])(?=.*\d)[A-Za-z\d]{3,5}$",
        r"^(?!\.)(?!.*\.\.)([a-z'+\-\.]*)[a-z_+-]@([a-z][a-z\-]*\.)+[a-z]{2,}$",
        "^(?!abc)[a-c]+$",
        "^(?!ab$)[ab]*$",
        "^(?!a+$)[ab]*$",
        "^(?=a|b$).",
        "^(?!a)",
    ],
)
def test_look_ahead_at_the_beginning(pattern):
    node, ours = anywhere(pattern), re.compile(pattern)
    texts = some_texts(node, random.Random(1), 40)
    assert len(texts) > 20
    for text in texts:
        assert ours.search(text), text
        for other in (
            text[1:],
            text[:-1],
            text + "a",
            text.replace("1", ".."),
            "abc" + text,
            text.lower(),
            "ab",
            "-.+",
        ):
            assert matches(node, other) == bool(ours.search(other)), other


def test_counts_are_not_written_out():
    node = whole("(?:[a-z]{1,1000} ){1,1000}")
    assert lengths(node) == (2, 1_001_000)


@pytest.mark.parametrize(
    "pattern", ["[a-z]+", "a[a-z]*b", "ab|abc|a{9}", "(?:ab)*", ".{2,5}", "[a-z]*@[a-z]*", "a?b?c*", "a|bb|c+"]
)
def test_texts_of_bounded_length(pattern):
    node = whole(pattern)
    for least, most in ((0, 3), (2, 2), (3, None), (1, 100)):
        found = limited(node, least, most)
        for text in some_texts(node, random.Random(1), 60):
            fits = least <= len(text) and (most is None or len(text) <= most)
            assert (found is not None and matches(found, text)) == fits, (text, least, most)


def test_length_is_counted_beside_a_pattern_only_where_it_must_be():
    assert limited(whole("[a-z]+"), 0, 10) == Repeat(whole("[a-z]"), 1, 10)
    assert not isinstance(limited(whole("[a-z]{8}-[a-z]{4}"), 3, 2000), Both)
    assert isinstance(limited(whole("[a-z]*-[a-z]*"), 0, 10), Both)
    assert limited(whole("[a-z]{8}"), 0, 7) is None


def test_short_cuts_through_unicode_leave_nothing_out():
    every = [chr(point) for first, last in sets.ALL for point in range(first, last + 1)]
    assert sets.matching(r"\w") == sets.of("".join(c for c in every if c.isalnum() or c == "_"))
    assert sets.matching(r"\d") == sets.categories()["Nd"]
    folded: dict[str, str] = {}
    for character in every:
        fold = character.casefold()
        if len(fold) == 1 and fold != character:
            folded[fold] = folded.get(fold, fold) + character
    for group in random.Random(0).sample(list(folded.values()), 60):
        assert sets.in_any_case(sets.of(group[0])) == sets.of(group)
