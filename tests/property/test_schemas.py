"""Random schemas: whatever models write under them parses and validates."""

from __future__ import annotations

import json
import os
import random

import jsonschema
import pytest
import torch

import redraft
from checkpoints import write_checkpoint
from redraft.checkpoint.locate import BUNDLED
from redraft.sampler.samplers import Move, Seen
from redraft.text.tokenizer import Tokenizer
from schemas import random_schema
from wide_schemas import WideSchemas, listed

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


@pytest.fixture(scope="module")
def given():
    """A model of someone's own, with a vocabulary of any size."""
    if "REDRAFT_MODEL" not in os.environ:
        pytest.skip("REDRAFT_MODEL names no model's directory")
    return redraft.load(os.environ["REDRAFT_MODEL"], dtype="float32", threads=1)


def likeliest(seen: Seen, step: int, max_denoising_steps: int) -> Move:
    """A sampler of one's own: every position takes its argmax, and every second one keeps it."""
    held = torch.arange(len(seen.argmax)) % 2 == step % 2
    return Move(tokens=seen.argmax, accepted=torch.ones_like(held), held=held)


WAYS = {
    "entropy-bound": {},
    "confidence": {"sampler": "confidence", "threshold": 0.6},
    "one's own": {"sampler": likeliest},
    "frozen": {"freeze_nats": 0.5},
    "handed over": {"handover_steps": 1, "settled_nats": 0.0, "settled_steps": 0, "confidence_threshold": 0.0},
    "verified": {"mode": "verified"},
    "autoregressive": {"mode": "autoregressive"},
}


def answered(engine, seed: int, way: str | None = None) -> bool:
    """Whether a random schema was answered: some are refused, or need more tokens than there are."""
    rng = random.Random(seed)
    schema = random_schema(rng) if seed % 2 else listed(WideSchemas(rng).schema())
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    options = {"seed": seed, "response_format": wanted, "max_new_tokens": 120, "max_denoising_steps": 3}
    if seed % 3 == 0:
        options["temperature"] = 0
    options |= WAYS[way or list(WAYS)[seed % len(WAYS)]]
    if options.get("mode") == "autoregressive":
        del options["max_denoising_steps"]
    try:
        constraint = engine.admission.constraints.of(engine.defaults.options.with_changes(response_format=wanted))
    except redraft.OptionError:
        assert not seed % 2, "what is held by and large is held here"
        return False
    automaton = constraint.automaton
    if automaton.shortest[automaton.start] > options["max_new_tokens"]:
        with pytest.raises(redraft.OptionError, match="shortest reply"):
            engine.generate("play something", **options)
        return False
    got = engine.generate("play something", **options)
    assert got.finish_reason == "stop", (schema, got.raw, got.error)
    check(schema, got.raw)
    return True


@pytest.mark.parametrize("seed", range(7, 1000, 61))
@pytest.mark.parametrize("which", ["mini", "noise"])
def test_models_obey(which, seed, request):
    answered(request.getfixturevalue(which), seed)


@pytest.mark.full
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("which", ["mini", "noise", "given"])
def test_models_obey_a_thousand_schemas(which, way, request):
    engine = request.getfixturevalue(which)
    assert sum(answered(engine, seed, way) for seed in range(1000)) > 700
