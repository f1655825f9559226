"""What a text breaks that its automaton does not hold yet: in C++, and by the definition."""

from __future__ import annotations

import pytest
from test_spelling import CALLS, ENDS, FREE, NUMBER, TOKENIZER, VOCABULARY, string

from redraft.text.grammar.breaches import Breaches
from redraft.text.grammar.compile import compiled
from redraft.text.grammar.nodes import Distinct, Repeat, Sequence, Text
from redraft.text.native import library

TREES = {
    "calls": Sequence((FREE, Repeat(Repeat(CALLS, 1), 0, 1))),
    "list": Sequence((Text("["), Repeat(string(3, 50), 2, 9, Text(",")), Text("]"))),
}
Q = '<|"|>'
OPENED, CLOSED = "<|tool_call>call:", "}<tool_call|>"
BREACHES = {name: Breaches(compiled(tree), VOCABULARY, tuple(ENDS)) for name, tree in TREES.items()}


@pytest.fixture(params=["native", "definition"])
def looked(request):
    if request.param == "definition":
        return lambda breaches, ids: breaches._reference(ids)
    if library("breaches") is None:
        pytest.skip("no compiler here")
    return lambda breaches, ids: breaches.of(ids)


@pytest.mark.parametrize(
    ("tree", "text", "broken"),
    [
        ("calls", "hello\n", []),
        ("calls", f"{OPENED}Play{{artist:{Q}x{Q}{CLOSED}\n", []),
        ("calls", f"{OPENED}Play{{year:3{CLOSED}\n", ["REQUIRE"]),
        ("calls", f"{OPENED}Play{{year:3,year:4,artist:{Q}x{Q}{CLOSED}\n", ["SET"]),
        ("calls", f"{OPENED}Play{{year:3{CLOSED}{OPENED}Rate{{of:3,of:4{CLOSED}\n", ["REQUIRE", "REQUIRE", "SET"]),
        # A text that goes on: what is asked for is counted, what stands there once bars nothing but itself.
        ("calls", "hello", []),
        ("calls", f"{OPENED}Play{{year:3", ["REQUIRE"]),
        ("calls", f"{OPENED}Play{{artist:{Q}x{Q},year:3", []),
        ("calls", f"{OPENED}Play{{artist:{Q}x{Q},mo", []),
        ("calls", f"{OPENED}Play{{artist:{Q}x{Q},art", ["SET"]),
        ("list", '["abc","abcd"]\n', []),
        ("list", '["abc","%s"]\n' % ("x" * 60), ["COUNT"]),
        ("list", '["abc"]\n', ["CHECK"]),
        ("list", '["a","abc"]\n', ["CHECK"]),
        ("list", "[{}]\n".format(",".join(['"abc"'] * 10)), ["COUNT"]),
        ("list", '["abc","%s' % ("x" * 60), ["COUNT"]),
    ],
)
def test_what_is_broken(looked, tree, text, broken):
    ids = TOKENIZER.encode(text.rstrip("\n")) + ([ENDS[0]] if text.endswith("\n") else [])
    breaches = BREACHES[tree]
    found = looked(breaches, ids)
    assert sorted(breaches.core.rules[number].kind.name for number in found.rules) == broken
    assert not found.repeated


def test_items_that_stand_there_twice_are_named():
    tree = Sequence((Text("["), Distinct(NUMBER, 0, 20, Text(",")), Text("]")))
    ids = TOKENIZER.encode("[7,12,7,3,12,71]")
    found = Breaches(compiled(tree), VOCABULARY, tuple(ENDS)).of([*ids, ENDS[0]])
    assert found.repeated == {(0, "7"), (0, "12")}
    narrower = Breaches(compiled(tree, {0: ("12", "7")}), VOCABULARY, tuple(ENDS))
    assert narrower.of([*TOKENIZER.encode("[7,12,3,71"), ENDS[0]]).repeated == set()


def test_a_token_beyond_the_vocabulary_is_refused_before_it_is_read():
    if library("breaches") is None:
        pytest.skip("no compiler here")
    with pytest.raises(ValueError, match="not of this vocabulary"):
        BREACHES["calls"].of([VOCABULARY.size])
