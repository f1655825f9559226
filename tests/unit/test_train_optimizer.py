"""Muon, rollouts, bent noise, and a norm whose gradient is written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from checkpoints import write_checkpoint
from redraft.checkpoint.load import load_model
from redraft.kernels import norm
from redraft.train import ahead as ahead_module
from redraft.train import objective as module
from redraft.train.objective import Objective, corrupt, loss_of
from redraft.train.optimizer import Muon, orthogonalise


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (2, 12, 5), (1, 1, 6)])
def test_singular_values_come_near_one(shape):
    matrices = torch.randn(shape, generator=generator()) * torch.tensor([1e-3, 5.0, 1.0])[: shape[0], None, None]
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.4


def test_a_matrix_of_zeros_stays_zero():
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


def test_a_stack_is_stepped_like_its_matrices():
    weights = torch.randn(3, 6, 4, generator=generator())
    gradients = torch.randn(3, 6, 4, generator=generator(1))
    stack = nn.Parameter(weights.clone())
    single = [nn.Parameter(weight.clone()) for weight in weights]
    for parameters, parts in (([stack], [gradients]), (single, list(gradients))):
        optimizer = Muon(parameters, lr=0.1, weight_decay=0.01)
        for _ in range(3):
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.grad = part.clone()
            optimizer.step()
    assert torch.allclose(stack, torch.stack(list(single)), atol=1e-6)


def test_muon_learns_a_badly_scaled_map():
    inputs = torch.randn(256, 8, generator=generator()) * torch.logspace(-2, 0, 8)
    target = inputs @ torch.randn(8, 8, generator=generator(1))
    weight = nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon([weight], lr=0.05)
    losses = []
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        loss = (inputs @ weight - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]


def test_noise_leans_where_it_is_told():
    canvas = torch.zeros(4000, 1, dtype=torch.long)
    means = [float(corrupt(canvas, 9, generator(), 1, power)[1].mean()) for power in (1.0, 2.0, 0.5)]
    # The mean of 1 - (1 - u)^p is p / (p + 1).
    assert means == pytest.approx([1 / 2, 2 / 3, 1 / 3], abs=0.02)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_checkpoint(tmp_path_factory.mktemp("objective"))).requires_grad_(True)


def batch_and_canvases(model, monkeypatch, objective):
    """The canvases and soft embeddings that the scored pass of a batch gets, and the batch."""
    import numpy as np

    from redraft.train.collate import collate
    from redraft.train.examples import Example

    examples = [Example([5, 6, 7], [8, 9, 10, 1], [False] * 4), Example([5], [11, 1], [False] * 2)]
    batch = collate(examples, model.config.canvas_length, 1, np.random.default_rng(0))
    seen = []
    whole = module.denoise

    def denoise(model, canvas, soft, behind):
        seen.append((canvas, soft, torch.is_grad_enabled()))
        return whole(model, canvas, soft, behind)

    for place in (module, ahead_module):
        monkeypatch.setattr(place, "denoise", denoise)
    loss_of(model, batch, generator(3), objective)
    return batch, seen


def test_without_rollouts_the_scored_canvas_is_the_noisy_one(model, monkeypatch):
    _, seen = batch_and_canvases(model, monkeypatch, Objective(self_conditioning=1.0))
    (first, none, learning), (scored, soft, scoring) = seen
    assert torch.equal(first, scored)
    assert none is None
    assert soft is not None
    assert (learning, scoring) == (False, True)


def test_a_rollout_goes_on_from_the_samplers_canvas(model, monkeypatch):
    _, seen = batch_and_canvases(
        model, monkeypatch, Objective(self_conditioning=1.0, rollout=1.0, rollout_steps=3, noise_power=50.0)
    )
    assert 2 <= len(seen) <= 4
    assert not torch.equal(seen[0][0], seen[-1][0])
    assert [soft is None for _, soft, _ in seen] == [True, *[False] * (len(seen) - 1)]
    assert [learning for _, _, learning in seen] == [*[False] * (len(seen) - 1), True]


def test_rows_that_are_not_chosen_keep_their_canvas_and_a_zero_signal(model, monkeypatch):
    objective = Objective(self_conditioning=0.5, rollout=1.0, draws=8)
    _, seen = batch_and_canvases(model, monkeypatch, objective)
    scored, soft, _ = seen[-1]
    silent = soft.abs().sum((1, 2)) == 0
    assert 0 < int(silent.sum()) < len(silent)
    assert len(seen[0][0]) == int((~silent).sum())
    assert len(scored) == 16


@pytest.mark.parametrize("shape", [(3, 5, 16), (1, 7), (130, 24)])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("native", [True, False])
def test_the_norms_gradient_against_float64(monkeypatch, shape, weighted, native):
    if not native:
        monkeypatch.setattr(norm, "runs_natively", lambda *_, **__: False)
    x = torch.randn(shape, generator=generator(), requires_grad=True)
    weight = torch.randn(shape[-1], generator=generator(1), requires_grad=True) if weighted else None
    gradient = torch.randn(shape, generator=generator(2))
    leaves = [x, weight] if weight is not None else [x]
    out = norm.rms_norm(x, weight, 1e-6)
    got = torch.autograd.grad(out, leaves, gradient)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = wide[0] / (wide[0].square().mean(-1, keepdim=True) + 1e-6).sqrt() * (wide[1] if weighted else 1)
    assert torch.allclose(out.double(), expected, atol=1e-5)
    for mine, theirs in zip(got, torch.autograd.grad(expected, wide, gradient.double()), strict=True):
        assert torch.allclose(mine.double(), theirs, atol=1e-4)


def test_a_norms_weight_learns_where_its_input_does_not():
    weight = torch.ones(6, requires_grad=True)
    norm.rms_norm(torch.randn(4, 6, generator=generator()), weight, 1e-6).sum().backward()
    assert weight.grad is not None
    assert float(weight.grad.abs().sum()) > 0
