"""What a canvas says of a schema's fields: against every sequence of tokens, and against an automaton a value."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from option_texts import known_of, narrowed, noise
from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import DEAD
from redraft.core.crossings import Crossings
from redraft.core.errors import SchemaError
from redraft.core.options import GenerationOptions
from redraft.kernels import recursions
from redraft.kernels.class_masses import ClassMasses
from redraft.kernels.field_weights import reading_weights, what_follows
from redraft.text.labelled import UNDECIDED, Labelled, labelled
from redraft.text.schema import schema_node
from redraft.text.schema.fields import MOST_VALUES, SchemaField, fields_of, told_apart
from redraft.text.schema.places import places_of
from redraft.text.tokenizer import Tokenizer

MINI = Tokenizer.from_directory(BUNDLED / "mini")
KNOWN = known_of(MINI, MINI.end_of_turn_ids(), MINI.id_of("<pad>"), 48)
PERSON = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad", "so so"]},
        "name": {"type": "string"},
        "is_old": {"type": "boolean"},
        "age": {"type": "integer", "exclusiveMinimum": -1, "maximum": 11, "multipleOf": 5},
        "home": {"$ref": "#/$defs/home"},
        "maybe": {"type": "boolean"},
    },
    "required": ["mood", "name", "is_old", "age", "home"],
    "$defs": {
        "home": {
            "type": "object",
            "properties": {"rooms": {"const": 3}, "garden": {"type": ["boolean", "null"]}},
            "required": ["rooms", "garden"],
        }
    },
}


def test_fields_are_those_that_are_always_there():
    assert [(field.path, field.values) for field in fields_of(PERSON)] == [
        (("mood",), ("good", "bad", "so so")),
        (("name",), ()),
        (("is_old",), (True, False)),
        (("age",), tuple(range(12))),
        (("home", "rooms"), (3,)),
        (("home", "garden"), (True, False, None)),
    ]
    assert [value for value, _ in told_apart(PERSON, fields_of(PERSON)[3])[1]] == [0, 5, 10], "what the rest leaves"


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "array", "items": {"type": "boolean"}},
        {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        {"enum": [[1], [2]]},
        {"type": "boolean", "nullable": True},
        {"type": ["string", "integer"]},
        {"enum": list(range(MOST_VALUES + 1))},
        {"type": ["object", "null"], "properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        True,
        {"$ref": "#", "description": "itself"},
    ],
)
def test_what_is_no_field(inner):
    assert fields_of({"type": "object", "properties": {"a": inner}, "required": ["a"]}) == ()


def test_integers_of_too_many_values_have_none():
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}, "required": ["n"]}
    assert fields_of(schema) == (SchemaField(("n",), ()),)


def test_a_schema_that_cannot_be_enforced_is_told():
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2], "contains": 3}}, "required": ["a"]}
    with pytest.raises(SchemaError, match="contains"):
        told_apart(schema, fields_of(schema)[0])


def weighed(known, schema, field, log_probs, written=(), end=None) -> tuple[list, tuple[float, ...], Labelled]:
    """(values, their log weights, what tells them apart) of a canvas behind what is written."""
    automaton = known.constraints().held_to(schema_node(schema), GenerationOptions()).automaton
    head, found = told_apart(schema, field)
    apart = labelled(known.constraints(), head, [node for _, node in found])
    crossings = Crossings.of(automaton, apart.automaton, apart.label)
    own = ClassMasses(automaton.class_of, automaton.num_classes, len(log_probs))
    masses = ClassMasses(crossings.class_of, crossings.num_classes, len(log_probs))
    for each in (own, masses):
        for first in range(0, len(log_probs), 3):
            each.add(first, log_probs[first : first + 3])
    end = np.where(automaton.accepting if end is None else end, 0.0, -np.inf)
    before = [each.advance(each.start, list(written)) for each in (automaton, apart.automaton)]
    pair = crossings.pairs[before[0], before[1]]
    follows = what_follows(own.mass, automaton, end)
    weights = reading_weights(masses.mass, crossings, pair, follows, len(found))
    return [value for value, _ in found], weights, apart


@pytest.fixture(params=["explicit", "broad"])
def parting(request, monkeypatch):
    """Whether classes of tokens are summed as a whole."""
    if request.param == "broad":
        monkeypatch.setattr("redraft.kernels.class_masses.EXPLICIT", 1)
        monkeypatch.setattr("redraft.kernels.class_masses.BROAD_LEAST", 2)


PIECES = ('{"a":', "true", "false", "}", " ", "t", "rue", "fal", "se", "true}", ":", '{"', 'a"', "null", "e}")
SPECIALS = ("<pad>", "<eos>", "<turn|>")


def json_tokens() -> Tokenizer:
    """A vocabulary that can write one small object, in several ways."""
    backend = Backend(models.WordLevel({token: n for n, token in enumerate((*SPECIALS, *PIECES, "a"))}, unk_token="a"))
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    backend.decoder = decoders.Fuse()
    return Tokenizer(backend)


JSON_KNOWN = known_of(json_tokens(), (2, 1), 0, 4)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_fields_probabilities_are_those_of_every_sequence(seed):
    schema = {"type": "object", "properties": {"a": {"type": ["boolean", "null"]}}, "required": ["a"]}
    log_probs = noise(seed, 4, JSON_KNOWN.vocab_size)
    values, weights, _ = weighed(JSON_KNOWN, schema, fields_of(schema)[0], log_probs)
    expected = dict.fromkeys(values, 0.0)
    spelled, scores = [*[""] * 3, *PIECES, "a"], log_probs.numpy()
    for tokens in itertools.product(range(len(spelled)), repeat=4):
        end = next((place for place, token in enumerate(tokens) if token < 3), 4)
        if tokens[end : end + 1] == (0,) or any(token > 2 for token in tokens[end:]):
            continue
        text = "".join(spelled[token] for token in tokens[:end])
        try:
            value = json.loads(text)
        except ValueError:
            continue
        # One blank at most, and none around the whole, is what is written.
        if "  " in text or text != text.strip():
            continue
        if isinstance(value, dict) and list(value) == ["a"] and not isinstance(value["a"], dict):
            expected[value["a"]] += np.exp(sum(scores[place, token] for place, token in enumerate(tokens)))
    np.testing.assert_allclose(np.exp(weights), list(expected.values()), rtol=1e-9)
    assert min(expected.values()) > 0


@pytest.mark.usefixtures("parting")
@pytest.mark.parametrize("field", [f for f in fields_of(PERSON) if len(f.values) > 1], ids=lambda f: f.path[-1])
def test_a_fields_weights_are_those_of_an_automaton_of_each_value(field):
    """Over mini's tokens: a backward pass over the constraint that generation would have with the value given."""
    log_probs = noise(7, 30, MINI.num_ids, 1.0)
    values, weights, _ = weighed(KNOWN, PERSON, field, log_probs)
    nodes = dict(narrowed(PERSON, field))
    assert values == list(nodes)
    for value, weight in zip(values, weights, strict=True):
        automaton = KNOWN.constraints().held_to(nodes[value], GenerationOptions()).automaton
        edges, scores = automaton.edges, log_probs.numpy()
        mass = np.full((30, automaton.num_classes), -np.inf)
        for kind in range(automaton.num_classes):
            mass[:, kind] = np.logaddexp.reduce(scores[:, automaton.class_of == kind], axis=1)
        of_sets = recursions.log_sum(mass[:, edges.member], edges.begins[:-1], np.diff(edges.begins))
        end = np.where(automaton.accepting, 0.0, -np.inf)
        assert weight == pytest.approx(recursions.backward(of_sets, edges, end)[0, automaton.start], abs=1e-9)


def test_a_canvas_that_ends_within_the_text_counts_what_is_decided_there():
    """Every sequence of four tokens behind a beginning, step by step through both automata."""
    automaton = KNOWN.constraints().held_to(schema_node(PERSON), GenerationOptions()).automaton
    ids, field = MINI.encode('{"mood": "bad", "name": "'), fields_of(PERSON)[0]
    head, found = told_apart(PERSON, field)
    apart = labelled(KNOWN.constraints(), head, [node for _, node in found])
    reached = [apart.automaton.advance(apart.automaton.start, ids[:count]) for count in range(len(ids) + 1)]
    known = [bool(apart.label[state] == 1) for state in reached]
    assert known == sorted(known)
    count = known.index(True) - 1
    assert apart.label[reached[count]] == UNDECIDED
    log_probs, end = noise(3, 4, MINI.num_ids, 1.0), np.ones(automaton.num_states, bool)
    _, weights, _ = weighed(KNOWN, PERSON, field, log_probs, ids[:count], end)
    states = {(automaton.advance(automaton.start, ids[:count]), reached[count], UNDECIDED): 0.0}
    for row in log_probs.numpy():
        moved: dict[tuple[int, int, int], float] = {}
        for (a, t, label), weight in states.items():
            behind, told = automaton.following(a)[automaton.class_of], np.full(len(row), DEAD)
            if label == UNDECIDED:
                told = apart.automaton.following(t)[apart.automaton.class_of]
                told[apart.automaton.class_of < 0] = DEAD
            behind[automaton.class_of < 0] = DEAD
            for token in np.flatnonzero((behind != DEAD) & ((told != DEAD) | (label != UNDECIDED))):
                now = int(apart.label[told[token]]) if label == UNDECIDED else label
                key = (int(behind[token]), int(told[token]) if now == UNDECIDED else 0, now)
                moved[key] = np.logaddexp(moved.get(key, -np.inf), weight + row[token])
        states = moved
    expected = np.full(3, -np.inf)
    for (_, _, label), weight in states.items():
        if label >= 0:
            expected[label] = np.logaddexp(expected[label], weight)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-9)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=4) | st.lists(st.integers(0, 9), max_size=2),
    lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), values, max_size=4), st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_places_are_where_values_are_written(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    def all_of(value, path=()):
        yield path, value
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from all_of(inner, (*path, key))

    places = places_of(text)
    assert set(places) == {path for path, _ in all_of(value)}
    for path, inner in all_of(value):
        first, behind = places[path]
        written = text[first:behind]
        read = f'"{written}"' if isinstance(inner, str) and written != '""' else written
        assert json.loads(read) == inner


def test_of_a_text_that_is_cut_off_what_was_read_has_places():
    assert places_of('{"a": "xy", "b": {"c": 1, "d": "un') == {("a",): (7, 9), ("b", "c"): (23, 24)}
    assert places_of("no JSON") == {}
    assert places_of("") == {}


def test_what_the_model_rules_out_weighs_nothing():
    log_probs = torch.full((4, JSON_KNOWN.vocab_size), -torch.inf, dtype=torch.float64)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    for row, token in enumerate((3, 12, 2, 0)):
        log_probs[row, token] = 0.0
    assert weighed(JSON_KNOWN, schema, fields_of(schema)[0], log_probs)[1] == (0.0, -np.inf)


def test_without_a_compiler_it_is_the_same(monkeypatch):
    schema = {"type": "object", "properties": {"a": {"type": ["boolean", "null"]}}, "required": ["a"]}
    log_probs = noise(9, 4, JSON_KNOWN.vocab_size)
    values, weights, _ = weighed(JSON_KNOWN, schema, fields_of(schema)[0], log_probs)
    monkeypatch.setattr("redraft.text.labelled.library", lambda name: None)
    again, defined, _ = weighed(JSON_KNOWN, schema, fields_of(schema)[0], log_probs)
    assert again == values
    np.testing.assert_allclose(defined, weights, rtol=0, atol=1e-12)


def test_numbers_of_which_one_begins_the_other_are_told_apart():
    schema = {"type": "object", "properties": {"n": {"enum": [1, 12, 123, 12.5]}}, "required": ["n"]}
    field = fields_of(schema)[0]
    for value in field.values:
        ids = [*MINI.encode(json.dumps({"n": value})), MINI.end_of_turn_ids()[0]]
        log_probs = torch.full((len(ids), MINI.num_ids), -torch.inf, dtype=torch.float64)
        log_probs[range(len(ids)), ids] = 0.0
        values, weights, _ = weighed(KNOWN, schema, field, log_probs)
        assert dict(zip(values, weights, strict=True)) == {v: 0.0 if v == value else -np.inf for v in field.values}


def test_a_value_at_the_root_is_no_field():
    assert fields_of({"enum": [1, 2]}) == ()
