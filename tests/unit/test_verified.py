"""Verified mode is the causal mode: token for token when greedy, in distribution when it samples."""

from __future__ import annotations

import pytest
import torch

import redraft
from checkpoints import CANVAS, write_checkpoint

TINY = 6


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return redraft.load(
        write_checkpoint(tmp_path_factory.mktemp("verified"), eos_token_id=None), dtype="float32", threads=1
    )


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("length", [1, 13, 40])
@pytest.mark.parametrize("budget", [1, CANVAS - 1, 3 * CANVAS + 2])
def test_greedy_is_the_causal_modes_greedy(engine, length, budget, steps):
    prompt = [(11 * i + length) % 190 + 3 for i in range(length)]
    options = {"temperature": 0.0, "max_new_tokens": budget}
    verified = engine.generate(prompt, mode="verified", seed=1, max_denoising_steps=steps, **options)
    assert verified.token_ids == engine.generate(prompt, mode="autoregressive", **options).token_ids
    assert verified.finish_reason == "length"
    assert -(-budget // CANVAS) <= verified.stats.canvases <= budget


def test_minis_greedy_replies(mini):
    texts = [
        "play some jazz by Nina Simone",
        "what is the weather in Oslo",
        "how do i bake bread",
        "book a table for two",
    ]
    kept = 0
    for seed, text in enumerate(texts):
        options = {"temperature": 0.0, "max_new_tokens": 96, "logprobs": True}
        causal = mini.generate(text, mode="autoregressive", **options)
        verified = mini.generate(text, mode="verified", seed=seed, **options)
        assert (verified.token_ids, verified.finish_reason) == (causal.token_ids, causal.finish_reason)
        assert verified.logprobs == pytest.approx(causal.logprobs, abs=1e-3)
        assert verified.stats.encode_passes < causal.stats.encode_passes
        kept += verified.stats.verified_tokens
    assert kept > 20, "most of what mini drafts is what it would have written"


@pytest.mark.parametrize("draws", [140, pytest.param(5000, marks=pytest.mark.full)])
def test_samples_have_the_causal_modes_distribution(tmp_path, draws):
    """Chi-square over all pairs of a tiny vocabulary, with the 99.99% bound of the normal approximation."""
    engine = redraft.load(write_checkpoint(tmp_path, vocab_size=TINY, eos_token_id=None), dtype="float32", threads=1)
    prompt, temperature = [3, 4, 5], 8.0
    model = engine.model
    first = torch.softmax(
        model.logits(model.encode(torch.tensor([prompt]), model.new_cache()))[0, -1] / temperature, -1
    )
    pairs = torch.tensor([[*prompt, token] for token in range(TINY)])
    then = torch.softmax(model.logits(model.encode(pairs, model.new_cache(TINY)))[:, -1] / temperature, -1)
    expected = (first[:, None] * then).double() * draws
    counts = torch.zeros(TINY, TINY, dtype=torch.float64)
    kept = 0
    for seed in range(draws):
        got = engine.generate(prompt, mode="verified", temperature=temperature, seed=seed, max_new_tokens=3)
        counts[got.token_ids[:2]] += 1
        kept += got.stats.verified_tokens
    common = expected >= draws / 90
    statistic = float(((counts - expected) ** 2 / expected)[common].sum())
    rest = float(expected[~common].sum())
    statistic += (float(counts[~common].sum()) - rest) ** 2 / max(rest, 1.0)
    freedom = int(common.sum())
    assert freedom > 8
    assert statistic < freedom + 3.7 * (2 * freedom) ** 0.5
    assert 0 < kept < 2 * draws


@pytest.mark.full
def test_two_hundred_of_minis_requests(mini):
    words = [("play", "jazz"), ("weather", "Oslo"), ("book", "table"), ("rate", "book"), ("find", "film")]
    for number in range(200):
        verb, noun = words[number % len(words)]
        text = f"please {verb} a {noun} number {number} for me"
        options = {"temperature": 0.0, "max_new_tokens": 64}
        causal = mini.generate(text, mode="autoregressive", **options)
        assert mini.generate(text, mode="verified", seed=number, **options).token_ids == causal.token_ids
