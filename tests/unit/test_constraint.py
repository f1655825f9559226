"""Tool calls and response formats on mini: syntax, types, counts, choices by the model's own distribution."""

from __future__ import annotations

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch

import redraft
from redraft import Generation, OptionError
from redraft.core.errors import SchemaError
from redraft.kernels.class_scores import of_logits
from redraft.kernels.constrained import draw
from redraft.model.cache import KVCache
from redraft.sampler import constrained, noise
from redraft.sampler.noise import Stream
from redraft.text.constraint import ConstraintFactory

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "PlayMusic",
            "parameters": {
                "type": "object",
                "properties": {
                    "artist": {"type": "string"},
                    "sort": {"enum": ["new", "best"]},
                    "year": {"type": "integer", "minimum": 1900, "maximum": 2030},
                    "music_item": {"type": "string"},
                },
                "required": ["artist"],
            },
        },
    },
    {"type": "function", "function": {"name": "Stop", "parameters": {"type": "object", "properties": {}}}},
]
TEXT = "Play the new Daft Punk album"


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"mode": "autoregressive"}, {"mode": "verified"}], ids=str)
def test_required_calls_are_valid(mini, options):
    for seed, text in enumerate([TEXT, "how do i bake bread", "what is the weather in Oslo", "!!"]):
        got = mini.generate(text, seed=seed, tools=TOOLS, tool_choice="required", max_new_tokens=96, **options)
        assert got.finish_reason == "tool_calls"
        for call in got.tool_calls:
            assert call.name in ("PlayMusic", "Stop")
            assert not call.repaired
            if call.name == "Stop":
                assert call.arguments == {}
                continue
            assert set(call.arguments) <= {"artist", "sort", "year", "music_item"}
            assert isinstance(call.arguments["artist"], str)
            assert call.arguments.get("sort") in (None, "new", "best")
            assert 1900 <= call.arguments.get("year", 2000) <= 2030


def test_choices_of_tools(mini):
    named = mini.generate(TEXT, seed=0, tools=TOOLS, tool_choice="Stop")
    assert [(call.name, call.arguments) for call in named.tool_calls] == [("Stop", {})]
    none = mini.generate(TEXT, seed=0, tools=TOOLS, tool_choice="none")
    assert not none.tool_calls
    assert "<|tool_call>" not in none.raw
    auto = mini.generate(TEXT, seed=0, tools=TOOLS)
    assert auto.tool_calls[0].arguments["artist"] == "Daft Punk"
    assert mini.generate("how do i bake bread", seed=0, tools=TOOLS).text.startswith("I can only help")
    with pytest.raises(OptionError, match="PlayMusic, Stop"):
        mini.generate(TEXT, tools=TOOLS, tool_choice="Dance")


def declared(**properties):
    return {"name": "Log", "parameters": {"type": "object", "properties": properties, "required": list(properties)}}


def test_of_a_function_that_is_not_strict_what_cannot_be_enforced_is_free(mini):
    odd = declared(when={"type": "string", "format": "week"})
    got = mini.generate(TEXT, seed=0, tools=[odd], tool_choice="required", mode="autoregressive", max_new_tokens=40)
    assert isinstance(got.tool_calls[0].arguments["when"], str), "its type can be held"
    with pytest.raises(SchemaError, match="Log.when.format"):
        mini.generate(TEXT, tools=[{**odd, "strict": True}])


@pytest.mark.parametrize(
    "parameters",
    [{"properties": ["a"]}, {"properties": {"a": {}}, "required": "a"}, [1]],
    ids=str,
)
def test_declarations_that_are_none(mini, parameters):
    with pytest.raises(OptionError):
        mini.generate(TEXT, tools=[{"name": "Log", "parameters": parameters}])


def test_parameters_may_refer_to_themselves(mini):
    tool = declared(name={"type": "string"}, next={"anyOf": [{"$ref": "#"}, {"type": "null"}]})
    got = mini.generate(TEXT, seed=0, tools=[{**tool, "strict": True}], tool_choice="required")
    assert got.tool_calls[0].arguments.keys() == {"name", "next"}


def test_an_argument_stands_once_though_the_pattern_allows_more(mini):
    constraint = mini.admission.constraints.of(mini.defaults.options.with_changes(tools=TOOLS, tool_choice="required"))
    ids = mini.tokenizer.encode('<|tool_call>call:PlayMusic{artist:<|"|>a<|"|>,year:1999,year:2000}<tool_call|>')
    assert constraint.automaton.advance(constraint.automaton.start, ids) >= 0
    narrower = constraint.narrowed(ids)
    assert narrower.automaton.advance(narrower.automaton.start, ids) < 0
    once = mini.tokenizer.encode('<|tool_call>call:PlayMusic{artist:<|"|>a<|"|>,year:1999}<tool_call|>')
    assert constraint.narrowed(once) is None
    assert narrower.automaton.advance(narrower.automaton.start, once) >= 0
    without = mini.tokenizer.encode("<|tool_call>call:PlayMusic{year:1999}<tool_call|>")
    narrower = constraint.narrowed(without)
    assert narrower.automaton.advance(narrower.automaton.start, without) < 0, "artist is required"
    assert narrower.automaton.advance(narrower.automaton.start, once) >= 0


def test_a_schema_with_the_thought_channel(mini):
    wanted = {"type": "choice", "choices": ["yes", "no"]}
    got = mini.generate(TEXT, seed=1, response_format=wanted, enable_thinking=True, max_new_tokens=48)
    assert got.text in ("yes", "no")


def test_json_that_spells_a_call_is_json(mini):
    wanted = {"type": "regex", "pattern": r"\{\"a\": \"call:Stop\{b:1\}\"\}"}
    got = mini.generate(TEXT, seed=0, response_format=wanted)
    assert json.loads(got.text) == {"a": "call:Stop{b:1}"}
    assert not got.tool_calls
    assert got.finish_reason == "stop"


def test_a_reply_goes_on_in_the_next_canvas(mini):
    wanted = {"type": "json_schema", "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 25}}
    got = mini.generate(TEXT, seed=0, response_format=wanted, max_denoising_steps=4, max_new_tokens=200)
    assert got.stats.canvases > 1
    assert len(json.loads(got.text)) >= 25


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"type": "json_schema", "schema": {"type": "number", "multipleOf": 0.007}}, SchemaError, "multipleOf"),
        (
            {"type": "json_schema", "schema": {"properties": {"a": {"if": {"type": "object"}, "then": False}}}},
            SchemaError,
            "properties.a.if",
        ),
        ({"type": "json_schema"}, OptionError, "schema"),
        ({"type": "regex", "pattern": "(a"}, OptionError, "pattern"),
        ({"type": "choice", "choices": []}, OptionError, "choices"),
        ({"type": "poem"}, OptionError, "poem"),
        ({"type": "regex", "pattern": "a{500}"}, OptionError, "shortest reply"),
        ({"type": "regex", "pattern": "(a|b)*a(a|b){30}"}, OptionError, "needs too much to compile"),
    ],
)
def test_what_cannot_be_enforced_is_refused_at_once(mini, wanted, error, words):
    with pytest.raises(error, match=words):
        mini.generate(TEXT, response_format=wanted, max_new_tokens=40)


def test_items_without_repeats(mini):
    """Strings of bounded length among them: what is counted in an item is not counted of the list."""
    for items, least in (({"type": "string", "maxLength": 2}, 10), ({"type": "integer"}, 4)):
        schema = {"type": "array", "items": items, "minItems": least, "uniqueItems": True}
        got = mini.generate("name tags", seed=0, response_format={"type": "json_schema", "schema": schema})
        found = json.loads(got.text)
        assert len(found) == len(set(found)) >= least
        assert all(len(item) <= 2 for item in found if isinstance(item, str))


def test_a_call_that_fills_its_budget_has_stopped_well(mini):
    tools = [declared(scores={"type": "object", "additionalProperties": {"type": "integer"}})]
    options = {"tools": tools, "tool_choice": "required", "mode": "autoregressive", "max_new_tokens": 60}
    found = [mini.generate("log it", seed=seed, **options) for seed in range(4)]
    assert {got.finish_reason for got in found} == {"tool_calls"}
    assert any(got.stats.generated_tokens == 60 for got in found), "one of them fills it"


def test_what_holds_a_text_with_holes_is_the_text(mini):
    with pytest.raises(OptionError, match="response_format: a text with holes"):
        mini.infill("a[[...]]", response_format={"type": "choice", "choices": ["ab"]})
    with pytest.raises(OptionError, match="tools: a text with holes"):
        mini.infill("a[[...]]", tools=TOOLS)


def test_without_a_compiler_replies_are_the_same(mini, monkeypatch):
    """Automata by their definitions, in every place that has a faster form."""
    schema = {
        "properties": {"a": {"type": "string", "maxLength": 5}, "b": {"type": "array", "items": {"type": "integer"}}}
    }
    asked = [
        {"tools": TOOLS, "tool_choice": "required"},
        {"response_format": {"type": "json_schema", "schema": {**schema, "required": ["a", "b"]}}},
    ]
    native = [mini.generate(TEXT, seed=1, max_denoising_steps=6, **options).token_ids for options in asked]
    for module in ("constraint", "grammar.determinise", "grammar.breaches"):
        monkeypatch.setattr(f"redraft.text.{module}.library", lambda name: None)
    slow = mini.admission.constraints
    monkeypatch.setattr(slow, "_made", OrderedDict())
    found = [mini.generate(TEXT, seed=1, max_denoising_steps=6, **options).token_ids for options in asked]
    assert all(constraint.language.spelling is None for constraint in slow._made.values())
    assert found == native


@pytest.mark.parametrize("mode", ["diffusion", "autoregressive", "verified"])
def test_a_rule_that_leaves_no_end_fails_its_reply_alone(mini, monkeypatch, mode):
    def refuse(*_):
        raise OptionError("too much to hold")

    monkeypatch.setattr(ConstraintFactory, "narrowed", refuse)
    requests = [
        mini.prepare(TEXT, seed=0, tools=TOOLS, tool_choice="required", mode=mode),
        mini.prepare(TEXT, seed=0, tools=None),
    ]
    running = mini.running()
    for request in requests:
        running.add(request)
    found = {}
    while len(found) < 2:
        found |= {id(one): event for one, event in running.step() if isinstance(event, Generation)}
    failed, other = (found[id(request)] for request in requests)
    assert failed.finish_reason == "error"
    assert "cannot be brought to an end that matches: too much to hold" in failed.error
    assert other.finish_reason != "error"
    assert other.token_ids


def test_an_enum_is_chosen_as_the_model_would():
    """2,000 seeds against the probability of each value, summed over every way to spell it (chi-square, 99.99%)."""
    engine = redraft.load("mini", dtype="float32", threads=1)
    values, L = ["new", "best", "play", "no"], 6
    wanted = {"type": "choice", "choices": values}
    constraint = engine.admission.constraints.of(
        engine.defaults.options.with_changes(response_format=wanted, tools=None)
    )
    automaton = constraint.automaton
    cache = engine.model.new_cache()
    engine.model.encode(torch.tensor([engine.tokenize(TEXT)]), cache)
    canvas = torch.arange(100, 100 + L)[None]
    logits = engine.model.denoise(canvas, KVCache(cache.sequences))[0]
    temperature = 2.0
    probabilities = torch.softmax(logits.double() / temperature, -1).numpy()
    behind = probabilities[:, [*engine.defaults.end_ids, engine.model.config.pad_token_id]].sum(-1)
    ends = probabilities[:, sorted(engine.defaults.end_ids)].sum(-1)

    def spellings(text: str, place: int, token_ids: list[int]) -> float:
        found = 0.0
        if engine.tokenizer.decode(token_ids) == text:
            found += ends[place] * behind[place + 1 :].prod() if place < L else 1.0
        if place < L:
            for token in range(engine.info.vocab_size):
                if text.startswith(candidate := engine.tokenizer.decode([*token_ids, token])) and (
                    candidate or not token_ids
                ):
                    found += probabilities[place, token] * spellings(text, place + 1, [*token_ids, token])
        return found

    expected = np.array([spellings(value, 0, []) for value in values])
    used, end = constrained.ends(automaton, L, L)
    counts = dict.fromkeys(values, 0)
    scores = of_logits(logits, temperature, automaton.parts)
    for seed in range(2000):
        at = [torch.tensor([number]) for number in (seed, 0, 0)]
        uniform = torch.cat([noise.uniform(at[0], stream, *at[1:], L) for stream in (Stream.SAMPLE, Stream.TOKEN)])
        sample = draw(scores, temperature, automaton, 0, end, used, uniform).sample.tolist()
        text = engine.tokenizer.decode(sample)
        counts[next(value for value in values if text == value or text.startswith(f"{value}<"))] += 1
    wanted_counts = expected / expected.sum() * 2000
    statistic = float(((np.array(list(counts.values())) - wanted_counts) ** 2 / wanted_counts).sum())
    assert wanted_counts.min() > 5
    assert statistic < 21.1
