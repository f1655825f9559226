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

from option_texts import known_of, noise
from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import DEAD
from redraft.core.errors import SchemaError
from redraft.core.options import GenerationOptions
from redraft.kernels import recursions
from redraft.kernels.option_weights import OptionWeights, option_weights
from redraft.text.labelled import UNDECIDED, labelled
from redraft.text.schema.fields import MOST_VALUES, SchemaField, fields_of, narrowed
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
    assert [value for value, _ in narrowed(PERSON, fields_of(PERSON)[3])] == [0, 5, 10], "what the rest leaves"


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
        narrowed(schema, fields_of(schema)[0])


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
    found = narrowed(schema, fields_of(schema)[0])
    languages = labelled(JSON_KNOWN.constraints(), [node for _, node in found])
    log_probs = noise(seed, 4, JSON_KNOWN.vocab_size)
    weights, _ = option_weights(log_probs, languages.texts)
    expected = dict.fromkeys((value for value, _ in found), 0.0)
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


@pytest.mark.parametrize("field", [f for f in fields_of(PERSON) if len(f.values) > 1], ids=lambda f: f.path[-1])
def test_a_fields_weights_are_those_of_an_automaton_of_each_value(field):
    """Over mini's tokens: a backward pass over the constraint that generation would have with the value given."""
    factory, found, length = KNOWN.constraints(), narrowed(PERSON, field), 30
    languages = labelled(factory, [node for _, node in found])
    log_probs = noise(7, length, MINI.num_ids, 1.0)
    weights, _ = option_weights(log_probs, languages.texts)
    for (_, node), weight in zip(found, weights, strict=True):
        automaton = factory.held_to(node, GenerationOptions()).automaton
        edges, scores = automaton.edges, log_probs.numpy()
        mass = np.full((length, automaton.num_classes), -np.inf)
        for kind in range(automaton.num_classes):
            mass[:, kind] = np.logaddexp.reduce(scores[:, automaton.class_of == kind], axis=1)
        of_sets = recursions.log_sum(mass[:, edges.member], edges.begins[:-1], np.diff(edges.begins))
        end = np.where(automaton.accepting, 0.0, -np.inf)
        assert weight == pytest.approx(recursions.backward(of_sets, edges, end)[0, automaton.start], abs=1e-9)


def test_a_canvas_that_ends_within_the_text_counts_what_is_known_there():
    field = fields_of(PERSON)[0]
    languages = labelled(KNOWN.constraints(), [node for _, node in narrowed(PERSON, field)])
    automaton = languages.texts.automaton
    ids = MINI.encode('{"mood": "bad", "name": "')
    reached = [automaton.advance(automaton.start, ids[:count]) for count in range(len(ids) + 1)]
    known = [bool(languages.label[state] == 1) for state in reached]
    assert known == sorted(known)
    start, behind = reached[known.index(True) - 1], reached[-1]
    assert languages.label[start] == UNDECIDED
    assert languages.label[behind] == 1
    cut = languages.cut(np.ones(automaton.num_states, bool))
    assert behind in cut[1]
    assert not {state for states in cut for state in states} & {s for states in languages.texts.whole for s in states}
    log_probs = noise(3, 4, MINI.num_ids, 1.0)
    weights = OptionWeights(languages.texts, 4, start=start, cut=cut)
    weights.add(0, log_probs)
    found, _ = weights.result()
    expected = np.full(3, -np.inf)
    states = {start: 0.0}
    for row in log_probs.numpy():
        moved: dict[int, float] = {}
        for state, weight in states.items():
            following = automaton.following(state)[automaton.class_of]
            for token in np.flatnonzero((following != DEAD) & (automaton.class_of >= 0)):
                target = int(following[token])
                moved[target] = np.logaddexp(moved.get(target, -np.inf), weight + row[token])
        states = moved
    for state, weight in states.items():
        if languages.label[state] >= 0:
            expected[languages.label[state]] = np.logaddexp(expected[languages.label[state]], weight)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


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


def test_noise_has_no_weight_for_what_the_model_bars():
    log_probs = torch.full((4, JSON_KNOWN.vocab_size), -torch.inf, dtype=torch.float64)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    languages = labelled(JSON_KNOWN.constraints(), [node for _, node in narrowed(schema, fields_of(schema)[0])])
    for row, token in enumerate((3, 12, 2, 0)):
        log_probs[row, token] = 0.0
    assert option_weights(log_probs, languages.texts)[0] == (0.0, -np.inf)
