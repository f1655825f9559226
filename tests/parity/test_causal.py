"""The causal mode against decoding through the reference's encoder."""

from __future__ import annotations

import pytest
import torch
from reference import Story, load_reference, random_ids

import redraft
from checkpoints import VOCAB, write_checkpoint
from redraft.checkpoint.locate import BUNDLED

LENGTH = 40
# A random model is sure of one token unless it is heated.
HOT = 12.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("causal"), eos_token_id=None)


@pytest.fixture(scope="module")
def engine(checkpoint):
    return redraft.load(checkpoint, dtype="float32", threads=1)


@pytest.mark.parametrize("length", [1, 13, 40])
def test_greedy_is_the_references_token_for_token(checkpoint, engine, length):
    prompt = random_ids(length, seed=length)
    story, ids, expected = Story(load_reference(checkpoint)), prompt[None], []
    for _ in range(LENGTH):
        ids = story.encode(ids)[:, -1].argmax(-1, keepdim=True)
        expected.append(int(ids))
    got = engine.generate(prompt.tolist(), mode="autoregressive", temperature=0.0, max_new_tokens=LENGTH)
    assert list(got.token_ids) == expected
    assert got.finish_reason == "length"


def test_minis_greedy_replies_are_the_references():
    engine = redraft.load("mini", dtype="float32", threads=1)
    reference = load_reference(BUNDLED / "mini")
    for text in ("play some jazz by Nina Simone", "what is the weather in Oslo", "how do i bake bread"):
        prompt = engine.tokenize(text)
        story, ids, expected = Story(reference), torch.tensor([prompt]), []
        while len(expected) < LENGTH:
            ids = story.encode(ids)[:, -1].argmax(-1, keepdim=True)
            if int(ids) in engine.defaults.end_ids:
                break
            expected.append(int(ids))
        got = engine.generate(text, mode="autoregressive", temperature=0.0, max_new_tokens=LENGTH)
        assert list(got.token_ids) == expected
        assert len(set(expected)) > 4


def test_samples_follow_the_models_distribution(checkpoint, engine):
    """Chi-square over the likeliest tokens of one place; 99.9% of such tests stay below the bound."""
    prompt, draws = random_ids(5, seed=1).tolist(), 600
    logits = Story(load_reference(checkpoint)).encode(torch.tensor([prompt]))[0, -1]
    probabilities = torch.softmax(logits / HOT, -1)
    counts = torch.zeros(VOCAB)
    for seed in range(draws):
        got = engine.generate(prompt, mode="autoregressive", temperature=HOT, seed=seed, max_new_tokens=1)
        counts[got.token_ids[0]] += 1
    likely = probabilities.argsort(descending=True)[:8]
    expected = torch.cat([probabilities[likely], 1 - probabilities[likely].sum()[None]]) * draws
    seen = torch.cat([counts[likely], draws - counts[likely].sum()[None]])
    assert float(((seen - expected) ** 2 / expected).sum()) < 26.1
