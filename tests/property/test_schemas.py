"""Random schemas: whatever models write under them parses and validates."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest

import redraft
from checkpoints import write_checkpoint
from redraft.checkpoint.locate import BUNDLED
from redraft.text.tokenizer import Tokenizer
from schemas import random_schema

TOKENIZER = Tokenizer.from_directory(BUNDLED / "mini")


def check(schema: dict, text: str) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(json.loads(text))


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A model with random weights behind mini's tokenizer."""
    directory = tmp_path_factory.mktemp("noise")
    write_checkpoint(directory, vocab_size=TOKENIZER.vocab_size, canvas_length=24, eos_token_id=1)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (directory / name).write_bytes((BUNDLED / "mini" / name).read_bytes())
    return redraft.load(directory, dtype="float32", threads=1)


def answered(engine, seed: int) -> None:
    schema = random_schema(random.Random(seed))
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    options = {"seed": seed, "response_format": wanted, "max_new_tokens": 120, "max_denoising_steps": 3}
    if seed % 3 == 0:
        options["temperature"] = 0
    if seed % 5 == 0:
        options["mode"] = ("autoregressive", "verified")[seed % 2]
    automaton = engine.admission.constraints.of(engine.defaults.options.with_changes(response_format=wanted)).automaton
    if automaton.shortest[automaton.start] > options["max_new_tokens"]:
        with pytest.raises(redraft.OptionError, match="shortest reply"):
            engine.generate("play something", **options)
        return
    got = engine.generate("play something", **options)
    assert got.finish_reason == "stop", (schema, got.raw)
    check(schema, got.raw)


@pytest.mark.parametrize("seed", range(7, 1000, 60))
@pytest.mark.parametrize("which", ["mini", "noise"])
def test_models_obey(which, seed, request):
    answered(request.getfixturevalue(which), seed)


@pytest.mark.full
@pytest.mark.parametrize("which", ["mini", "noise"])
def test_models_obey_a_thousand_schemas(which, request):
    for seed in range(1000):
        answered(request.getfixturevalue(which), seed)
