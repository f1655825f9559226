"""A generation under a schema whose fields come with probabilities: the bundled model, through the engine."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch

import redraft
from option_texts import narrowed
from redraft.core.errors import OptionError
from redraft.core.options import GenerationOptions
from redraft.engine import fields as module
from redraft.engine.fields import FieldWatch
from redraft.kernels import recursions
from redraft.sampler.constrained import ends
from redraft.text.schema.fields import fields_of

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["happy", "sad", "calm"]},
        "loud": {"type": "boolean"},
        "artist": {"type": "string", "maxLength": 20},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "kind": {"const": "music"},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 1},
    },
    "required": ["mood", "loud", "artist", "stars", "kind", "tags"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "song", "schema": SCHEMA}}
SMALL = {
    "type": "object",
    "properties": {"mood": {"enum": ["sad", "calm"]}, "ok": {"type": "boolean"}, "n": {"enum": [1, 2, "many"]}},
    "required": ["mood", "ok", "n"],
}
TEXT = "play some calm jazz by Nina Simone"


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def reply(mini):
    return mini.generate(TEXT, seed=1, response_format=FORMAT, probabilities=True, logprobs=True)


def test_every_field_has_its_probabilities_beside_the_text(reply):
    written = json.loads(reply.text)
    assert [field.path for field in reply.fields] == [("mood",), ("loud",), ("artist",), ("stars",), ("kind",)]
    for field in reply.fields:
        assert field.value == written[field.path[0]]
        assert 0 <= field.probability <= 1
    mood, loud, artist, stars, kind = reply.fields
    assert [each.value for each in mood.probabilities] == ["happy", "sad", "calm"]
    assert [each.value for each in loud.probabilities] == [True, False]
    assert [each.value for each in stars.probabilities] == [1, 2, 3, 4, 5]
    for field in (mood, loud, stars, kind):
        assert field.source == "canvas"
        assert sum(each.probability for each in field.probabilities) == pytest.approx(1)
        assert field.probability == next(e.probability for e in field.probabilities if e.value == field.value)
    assert (kind.probability, artist.source, artist.probabilities) == (1.0, "causal", ())
    assert json.loads(json.dumps(reply.to_dict()))["fields"][0]["probabilities"][1]["value"] == "sad"


def test_the_text_is_the_same_without(mini, reply):
    plain = mini.generate(TEXT, seed=1, response_format=FORMAT)
    assert (plain.text, plain.token_ids, plain.fields) == (reply.text, reply.token_ids, ())
    quiet = mini.generate(TEXT, seed=1, response_format=FORMAT, probabilities=True)
    assert (quiet.text, quiet.fields) == (reply.text, reply.fields)
    assert (quiet.logprobs, quiet.doubts) == (None, ())


def test_a_text_has_the_causal_modes_probability_of_its_tokens(mini, reply):
    artist = next(field for field in reply.fields if field.path == ("artist",))
    start = reply.text.index(artist.value, reply.text.index('"artist"') + len('"artist"'))
    lengths = [len(mini.tokenizer.decode(reply.token_ids[:count])) for count in range(len(reply.token_ids) + 1)]
    held = [
        place
        for place in range(len(reply.token_ids))
        if lengths[place] < start + len(artist.value) and lengths[place + 1] > start
    ]
    assert len(held) > 1
    assert artist.probability == pytest.approx(math.exp(sum(reply.logprobs[place] for place in held)), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"canvas_length": 12}, {"pinned": True}], ids=str)
def test_probabilities_are_those_of_the_last_steps_own_logits(mini, monkeypatch, options):
    """An automaton for each value, and a backward pass over the whole vocabulary's probabilities at temperature 1."""
    seen = []

    def see(self, score, automaton, written, ids, length, room):
        before = set(self.decided)
        _SEE(self, score, automaton, written, ids, length, room)
        new = set(self.decided) - before
        seen.append((score(0, length).double(), list(written), room, new))

    monkeypatch.setattr(FieldWatch, "see", see)
    if options.get("pinned"):
        # Pinned from the beginning, so that what is held is told from what is drawn.
        start = mini.encode('{"mood": "')
        options = {"initial_canvas": start, "pinned": range(len(start))}
    got = mini.generate(
        TEXT,
        seed=1,
        response_format={"type": "json_schema", "schema": SMALL},
        probabilities=True,
        max_new_tokens=48,
        **options,
    )
    factory, checked = mini.admission.constraints, 0
    for logits, written, room, new in seen:
        scores = torch.log_softmax(logits, -1).numpy()
        if "pinned" in options:
            assert [int(place) for place in scores.argmax(-1)[: len(start)]] == start
            assert np.isinf(scores[: len(start)]).sum() == len(start) * (scores.shape[1] - 1)
        for path in new:
            field = next(known for known in fields_of(SMALL) if known.path == path)
            nodes = dict(narrowed(SMALL, field))
            expected = np.array([_weight(factory, node, scores, written, room) for node in nodes.values()])
            if room > len(scores):
                # A canvas that others follow may end before the field, which no value has to itself.
                continue
            shown = next(found for found in got.fields if found.path == path)
            shares = np.exp(expected - expected.max())
            np.testing.assert_allclose(
                [each.probability for each in shown.probabilities], shares / shares.sum(), rtol=0, atol=1e-6
            )
            checked += 1
    assert checked


_SEE = FieldWatch.see


def _weight(factory, node, scores, written, room) -> float:
    automaton = factory.held_to(node, GenerationOptions()).automaton
    state = automaton.advance(automaton.start, written)
    if state < 0:
        return -np.inf
    edges = automaton.edges
    used, end = ends(automaton, room, len(scores))
    kinds = [automaton.class_of == kind for kind in range(automaton.num_classes)]
    mass = np.stack([np.logaddexp.reduce(scores[:used, of_kind], axis=1) for of_kind in kinds], axis=1)
    of_sets = recursions.log_sum(mass[:, edges.member], edges.begins[:-1], np.diff(edges.begins))
    return float(recursions.backward(of_sets, edges, end)[0, state])


def test_a_field_is_told_by_the_canvas_that_decides_it(mini):
    got = mini.generate(TEXT, seed=1, response_format=FORMAT, probabilities=True, canvas_length=24, max_new_tokens=96)
    assert got.stats.canvases > 1
    assert [field.path for field in got.fields] == [field.path for field in fields_of(SCHEMA)]
    assert all(field.value == json.loads(got.text)[field.path[0]] for field in got.fields)


def test_a_reply_that_was_cut_off_has_the_fields_that_it_has(mini):
    got = mini.generate(TEXT, seed=1, response_format=FORMAT, probabilities=True, stop=['"artist"'])
    assert [field.path for field in got.fields][:2] == [("mood",), ("loud",)]
    assert all(field.source == "canvas" for field in got.fields)


def test_it_is_the_same_in_company(mini, reply):
    options = {"seed": 1, "response_format": FORMAT, "probabilities": True}
    requests = [redraft.Request(prompt=text, options=options) for text in (TEXT, "hello")]
    assert mini.generate_batch(requests)[0].fields == reply.fields


def test_a_watch_goes_to_another_process(mini):
    watch = module.watch_of(mini.admission.constraints, FORMAT)
    other = pickle.loads(pickle.dumps(watch))
    assert [field for field in other.fields] == [field for field in watch.fields]
    assert other.few[("loud",)].apart.whole == watch.few[("loud",)].apart.whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "probabilities need a response_format with a JSON schema"),
        ({"response_format": {"type": "regex", "pattern": "a+"}}, "probabilities need a response_format"),
        ({"response_format": FORMAT, "mode": "autoregressive"}, "probabilities belongs to mode='diffusion'"),
        ({"response_format": FORMAT, "enable_thinking": True}, "without tools and thoughts"),
        (
            {"response_format": FORMAT, "tools": [{"type": "function", "function": {"name": "f"}}]},
            "without tools and thoughts",
        ),
        ({"response_format": FORMAT, "probabilities": "yes"}, "probabilities must be true or false"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(mini, options, message):
    with pytest.raises(OptionError) as caught:
        mini.generate(TEXT, **{"probabilities": True, **options})
    assert message.lower() in str(caught.value).lower()


def test_too_many_values_are_refused(mini):
    of_many = {"type": "integer", "minimum": 0, "maximum": 199}
    properties = {f"n{number}": of_many for number in range(3)}
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    with pytest.raises(OptionError, match="3 fields of the schema have 600 values in all, and at most 64 with 512"):
        mini.generate(TEXT, response_format={"type": "json_schema", "schema": schema}, probabilities=True)
