"""What Python lets a caller write by mistake: one line of redraft's own that names it, from every public call."""

from __future__ import annotations

import dataclasses
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import redraft
from redraft import GenerationOptions, InputError, OptionError, PromptError, Request
from redraft.checkpoint.locate import BUNDLED

TEXT = "play the new Daft Punk album"
NO_PROMPTS = [
    (None, "got None"),
    (5, "got 5"),
    (b"play", "bytes: decode"),
    ({"role": "user", "content": "play"}, "one message is a list of it"),
    ({"play"}, "got {'play'}"),
    (iter(["play"]), "list_iterator"),
    (np.array([5, 6]), "tolist"),
    (torch.tensor([5, 6]), "tolist"),
    (["play"], "message 0"),
    ([None], "message 0"),
    ([1.5], "1.5 at position 0"),
    ([True], "True at position 0"),
    ([5, "play"], "'play' at position 1"),
    ([5, None], "None at position 1"),
]
NO_OPTIONS = [
    ({"stop": 5}, "stop"),
    ({"stop": b"x"}, "stop"),
    ({"stop": [5]}, "stop"),
    ({"stop": {"a": 1}}, "stop"),
    ({"tools": {"type": "function"}}, "one mapping: put it into a list"),
    ({"tools": "play"}, "tools"),
    ({"tools": [print]}, "tools.*print"),
    ({"tools": ["play"]}, "tools.*'play'"),
    ({"tools": 5}, "tools"),
    ({"tools": [{"name": "f", "parameters": {"properties": {5: {}}}}]}, "f.properties"),
    ({"tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tool_choice": None}, "tool_choice"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": dict}, "response_format"),
    ({"response_format": {"type": ["regex"]}}, "response_format"),
    ({"preset": 5}, "preset"),
    ({"preset": ["fast"]}, "preset"),
    ({"mode": ["diffusion"]}, "mode"),
    ({"mode": None}, "mode"),
    ({"seed": "0"}, "seed"),
    ({"seed": 1.0}, "seed"),
    ({"seed": True}, "seed"),
    ({"max_new_tokens": None}, "max_new_tokens"),
    ({"max_new_tokens": "8"}, "max_new_tokens"),
    ({"max_new_tokens": np.array([8, 9])}, "max_new_tokens"),
    ({"temperature": torch.tensor([0.5, 0.6])}, "temperature"),
    ({"t_max": None}, "t_max"),
    ({"t_max": 1j}, "t_max"),
    ({"top_p": "1"}, "top_p"),
    ({"canvas_length": 8.0}, "canvas_length"),
    ({"initial_canvas": 5}, "initial_canvas"),
    ({"initial_canvas": b"x"}, "initial_canvas"),
    ({"initial_canvas": ["a"]}, "initial_canvas"),
    ({"initial_canvas": [5, 6], "pinned": 1}, "pinned"),
    ({"initial_canvas": [5, 6], "pinned": "1"}, "pinned"),
    ({"initial_canvas": [5, 6], "pinned": [0.5]}, "pinned"),
    ({"pinned": None}, "pinned"),
    *(
        ({field.name: "yes"}, field.name)
        for field in dataclasses.fields(GenerationOptions)
        if field.default in (True, False) and isinstance(field.default, bool)
    ),
]
NO_SPANS = [
    ("Daft Punk", r"stands at \(13, 22\)"),
    ("a", r"stands first at \(2, 3\)"),
    ("Kraftwerk", "does not contain"),
    ("", "does not contain"),
    (None, "got None"),
    (5, "got 5"),
    ((5,), r"got \(5,\)"),
    ((1, 2, 3), "got"),
    ((1.0, 4.0), "got"),
    (("1", "4"), "got"),
    ((False, True), "got"),
    (b"ab", "got"),
    (slice(1, 4), "slice"),
    ((4, 4), "empty"),
    ((9, 4), "ends before it begins"),
    ((-4, -1), "no part of a text of 28 characters"),
    ((20, 99), "no part of a text of 28 characters"),
]


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


def told(kind: type[InputError], match: str, call, *given, **named) -> None:
    """The call must raise this, in one line that is no screenful."""
    with pytest.raises(kind) as caught:
        call(*given, **named)
    assert re.search(match, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("prompt", "reason"), NO_PROMPTS, ids=[str(n) for n in range(len(NO_PROMPTS))])
def test_a_prompt_of_a_wrong_kind(engine, prompt, reason):
    for call in (engine.generate, engine.stream, engine.tokenize, engine.prepare):
        told(PromptError, reason, call, prompt)
    told(PromptError, reason, engine.generate_batch, [Request(prompt=prompt)])
    if prompt is not None:
        told(PromptError, reason, engine.infill, "at [[...]]", prompt)


@pytest.mark.parametrize(("options", "reason"), NO_OPTIONS, ids=[str(n) for n in range(len(NO_OPTIONS))])
def test_an_option_of_a_wrong_kind(engine, options, reason):
    told(OptionError, reason, engine.generate, TEXT, **options)
    told(OptionError, reason, engine.generate_batch, [Request(prompt=TEXT, options=options)])


@pytest.mark.parametrize(
    "schema",
    [
        {"required": 5},
        {"required": True},
        {"anyOf": 5},
        {"anyOf": None},
        {"oneOf": 1.5},
        {"type": "object", "properties": {5: {}}},
        {"minItems": "2"},
    ],
)
def test_a_schema_of_a_wrong_kind(engine, schema):
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    told(OptionError, f"schema: {list(schema)[-1]}", engine.generate, TEXT, response_format=wanted)


@pytest.mark.parametrize(("span", "reason"), NO_SPANS)
def test_a_span_of_a_wrong_kind(engine, span, reason):
    told(PromptError, reason, engine.edit, TEXT, span, "make it older")
    told(PromptError, reason, engine.prepare_edit, TEXT, span, "make it older")


@pytest.mark.parametrize("text", [None, 5, b"play", ["play"], Path("play")])
def test_a_text_of_a_wrong_kind(engine, text):
    told(PromptError, "text must be a string", engine.infill, text)
    told(PromptError, "text must be a string", engine.edit, text, (0, 1), "louder")
    told(PromptError, "text must be a string", engine.encode, text)
    told(PromptError, "instruction must be a string", engine.edit, TEXT, (0, 4), text)


@pytest.mark.parametrize("options", [{"seed": 0}, 5, "fast", GenerationOptions])
def test_options_that_are_none(engine, options):
    for call in (engine.generate, engine.stream, engine.tokenize):
        told(OptionError, "options must be GenerationOptions", call, TEXT, options)
    told(OptionError, "options must be GenerationOptions", engine.infill, "at [[...]]", None, options)
    told(OptionError, "options must be GenerationOptions", engine.edit, TEXT, (0, 4), "louder", options)


@pytest.mark.parametrize("options", [None, 5, "fast", [("seed", 0)], {5: 0}])
def test_options_of_a_request_that_are_none(options):
    told(OptionError, "options of a Request", Request, prompt=TEXT, options=options)


@pytest.mark.parametrize("batch", [None, 5, TEXT, b"play", {"role": "user"}, Request(prompt=TEXT)])
def test_a_batch_that_is_none(engine, batch):
    told(PromptError, "a batch must be a list", engine.generate_batch, batch)


def test_a_batch_says_which_request_it_is(engine):
    with pytest.raises(PromptError, match="empty") as caught:
        engine.generate_batch([TEXT, ""])
    assert caught.value.__notes__ == ["It is request 1 of the batch."]


@pytest.mark.parametrize("ids", [None, 5, "play", [None], ["a"], [-1], [2**70]])
def test_token_ids_of_a_wrong_kind(engine, ids):
    told(PromptError, "token_ids must be", engine.pieces, ids)


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": None},
        {"model": 5},
        {"model": b"mini"},
        {"device": None},
        {"device": 0},
        {"device": "cpu:x"},
        {"dtype": None},
        {"dtype": torch.int8},
        {"dtype": float},
        {"quantize": True},
        {"quantize": ["int8"]},
        {"threads": "2"},
        {"threads": 1.5},
        {"workers": "2"},
        {"max_context": "512"},
        {"memory_gb": "4"},
        {"prefix_cache_mb": None},
        {"verify": "no"},
        {"revision": 5},
    ],
)
def test_what_load_cannot_use(arguments):
    told(OptionError, next(iter(arguments)), redraft.load, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"directory": None}, {"directory": 5}, {"device": "warp"}, {"dtype": "float32"}, {"dtype": torch.int8},
     {"quantize": "int3"}],
)  # fmt: skip
def test_what_load_model_cannot_use(arguments):
    named = "model" if "directory" in arguments else next(iter(arguments))
    told(OptionError, named, redraft.load_model, **{"directory": BUNDLED / "mini", **arguments})


def test_load_takes_what_torch_and_paths_are_named_by():
    engine = redraft.load(BUNDLED / "mini", device=torch.device("cpu"), dtype=torch.float32, threads=1)
    assert (engine.info.device, engine.info.dtype) == ("cpu", "float32")


def test_numbers_of_numpy_are_numbers(engine):
    options = GenerationOptions(seed=np.uint64(2**63), max_new_tokens=np.int32(8), temperature=np.float32(0.5))
    assert (options.seed, options.max_new_tokens, options.temperature) == (2**63, 8, 0.5)
    assert type(options.seed) is int
    assert engine.tokenize(list(np.array([5, 6]))) == [5, 6]


def test_options_mean_the_same_however_they_come(engine):
    """Whole options are those that were set: what mini knows by heart stays, unless somebody sets `tools`."""
    alone = engine.generate(TEXT, seed=3)
    assert alone.tool_calls
    batch = [Request(prompt=TEXT, options={"seed": 3}), Request(prompt=TEXT, options=GenerationOptions(seed=3))]
    for reply in engine.generate_batch(batch):
        assert reply == dataclasses.replace(alone, stats=reply.stats)
    for options, tools in ({"seed": 3}, engine.defaults.options.tools), ({"seed": 3, "tools": None}, None):
        assert engine.prepare(TEXT, GenerationOptions(**options)).options.tools is tools
        assert engine.prepare(TEXT, **options).options.tools is tools


def test_options_know_what_was_set():
    options = GenerationOptions(seed=3, t_max=0.8)
    assert options.given == {"seed": 3, "t_max": 0.8}
    assert options.with_changes(stop="x").given == {"seed": 3, "t_max": 0.8, "stop": ("x",)}
    assert pickle.loads(pickle.dumps(options)).given == options.given
    assert GenerationOptions(preset="fast").with_changes().given == {"preset": "fast"}
    assert GenerationOptions(seed=3) == GenerationOptions().with_changes(seed=3)
