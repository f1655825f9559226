"""The head's five results against float64 and against their definitions."""

from __future__ import annotations

import pytest
import torch

from redraft.kernels import head as kernel
from redraft.kernels.head import head, inverse_cdf

V, D, CAP = 53, 16, 30.0


def inputs(rows=9, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, D, generator=generator) * scale
    embedding = torch.randn(V, D, generator=generator)
    uniform = torch.rand(rows, generator=generator)
    temperature = torch.rand(rows, generator=generator) + 0.3
    return hidden, embedding, temperature, uniform


def run(hidden, embedding, temperature, uniform):
    return head(hidden, embedding, cap=CAP, embed_scale=torch.tensor(4.0), temperature_N=temperature, uniform_N=uniform)


@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
@pytest.mark.parametrize("rows", [1, 9])
def test_against_float64(rows, scale):
    hidden, embedding, temperature, uniform = inputs(rows, scale)
    stats = run(hidden, embedding, temperature, uniform)
    logits = torch.tanh(hidden.double() @ embedding.double().T / CAP) * CAP / temperature[:, None].double()
    log_probs = torch.log_softmax(logits, -1)
    probs = log_probs.exp()
    assert torch.allclose(stats.entropy.double(), -(probs * log_probs).sum(-1), atol=1e-4)
    assert torch.allclose(stats.soft_embedding.double(), probs @ embedding.double() * 4, atol=1e-3)
    chosen = log_probs.gather(1, stats.sample[:, None])[:, 0]
    assert torch.allclose(stats.log_prob.double(), chosen, atol=1e-4)
    best = log_probs.gather(1, stats.argmax[:, None])[:, 0]
    assert torch.allclose(best, log_probs.max(-1).values, atol=1e-4)
    assert torch.allclose(stats.best_log_prob.double(), best, atol=1e-4)


def test_tiles_change_nothing(monkeypatch):
    whole = run(*inputs())
    monkeypatch.setattr(kernel, "MAX_TILE_BYTES", 4 * V * 2)
    tiled = run(*inputs())
    assert torch.equal(whole.sample, tiled.sample)
    assert torch.allclose(whole.soft_embedding, tiled.soft_embedding, atol=1e-5)


def test_temperature_zero_is_the_limit():
    hidden, embedding, temperature, uniform = inputs()
    temperature[::2] = 0
    stats = run(hidden, embedding, temperature, uniform)
    cold = run(hidden, embedding, torch.full_like(temperature, 1e-4), uniform)
    assert torch.equal(stats.sample[::2], stats.argmax[::2])
    assert torch.equal(stats.sample[::2], cold.sample[::2])
    assert float(stats.entropy[::2].abs().max()) == 0
    assert float(stats.log_prob[::2].abs().max()) == 0
    assert float(stats.best_log_prob[::2].abs().max()) == 0
    assert torch.allclose(stats.soft_embedding[::2], cold.soft_embedding[::2], atol=1e-5)
    assert float(stats.entropy[1::2].min()) > 0


def test_inverse_cdf_is_in_vocabulary_order():
    probs = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]]).expand(6, -1)
    draws = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.999999])
    assert inverse_cdf(probs, draws).tolist() == [0, 0, 2, 2, 3, 3]


def test_samples_follow_the_distribution():
    torch.manual_seed(1)
    probs = torch.softmax(torch.randn(1, 6), -1)
    tokens = inverse_cdf(probs.expand(60_000, -1), torch.rand(60_000))
    frequency = torch.bincount(tokens, minlength=6) / 60_000
    assert torch.allclose(frequency, probs[0], atol=0.01)
