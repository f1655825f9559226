"""Random trees: their automata take the texts that the trees hold, whichever form makes them."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grammar_matches import matches, some_texts
from redraft.core.errors import OptionError
from redraft.text.grammar.compile import compiled, embedded
from redraft.text.grammar.determinise import AmbiguousError, determinise, determinise_reference
from redraft.text.grammar.nfa import Builder
from redraft.text.grammar.nodes import AnyOrder, Both, Chars, Choice, Repeat, Sequence, Text, Without
from taken import takes

ALPHABET = "abé漢"
leaves = st.one_of(
    st.text(ALPHABET, min_size=1, max_size=3).map(Text),
    st.sampled_from(
        [Chars(((0x61, 0x62),)), Chars(((0x61, 0x61), (0xE0, 0x6F22))), Chars(((0x62, 0xD7FF), (0xE100, 0x10FFFF)))]
    ),
)


def grown(inner):
    counts = st.tuples(st.integers(0, 3), st.integers(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))
    ends = st.one_of(counts, st.integers(0, 3).map(lambda least: (least, None)))
    keys = st.lists(st.sampled_from(["a:", "b:", "é:", "漢:"]), min_size=1, max_size=3, unique=True)
    return st.one_of(
        st.lists(inner, min_size=0, max_size=3).map(lambda parts: Sequence(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Choice(tuple(parts))),
        st.builds(
            lambda part, bounds, comma: Repeat(part, *bounds, Text(",") if comma else None), inner, ends, st.booleans()
        ),
        st.builds(
            lambda names, value, all_required: AnyOrder(
                tuple((Text(name), value) for name in names),
                frozenset(range(len(names)) if all_required else ()),
                Text(";"),
            ),
            keys,
            inner,
            st.booleans(),
        ),
        st.builds(Both, inner, inner),
        st.builds(lambda part, words: Without(part, (words,)), inner, st.text("abé", min_size=1, max_size=2)),
    )


trees = st.recursive(leaves, grown, max_leaves=6)


@given(trees, st.lists(st.text(ALPHABET + ",;:", max_size=8), max_size=12), st.integers(0, 2**32))
@settings(max_examples=400, deadline=None)
def test_an_automaton_takes_the_texts_of_its_tree(tree, strangers, seed):
    try:
        core = compiled(tree)
    except OptionError:
        # No text is left, or two ways of counting cannot be told apart.
        return
    texts = some_texts(tree, random.Random(seed), 6)
    near = [text[:place] + text[place + 1 :] for text in texts for place in range(min(3, len(text)))]
    for text in (*texts, *near, *strangers, ""):
        assert takes(core, text) == matches(tree, text), (tree, text)


@given(trees)
@settings(max_examples=200, deadline=None)
def test_both_forms_make_the_same_automaton(tree):
    try:
        builder = Builder(frozenset(), embedded, {})
        builder.put(tree, builder.nfa.start, builder.nfa.end)
    except OptionError:
        return
    made = []
    for form in (determinise, determinise_reference):
        try:
            core = form(builder.nfa)
        except (AmbiguousError, OptionError) as error:
            made.append(type(error))
        else:
            made.append([np.asarray(x).tolist() for x in (core.next, core.act, core.kind, core.final)] + [core.steps])
    assert made[0] == made[1]
