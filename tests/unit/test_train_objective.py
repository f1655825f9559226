"""The objective against plain torch, and the training mode against the inference mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import redraft
from checkpoints import CANVAS, VOCAB, write_checkpoint
from redraft.kernels.cross_entropy import weighted_cross_entropy
from redraft.kernels.experts import experts
from redraft.kernels.head import softcap
from redraft.kernels.norm import rms_norm
from redraft.train.attend import DenoiseBatch, EncodeBatch
from redraft.train.collate import bucketed, collate
from redraft.train.examples import Example
from redraft.train.objective import Objective, corrupt, loss_of

CAP = 30.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return redraft.load_model(write_checkpoint(tmp_path_factory.mktemp("objective")))


def example(prompt, response, complete=True):
    values = [i % 3 == 0 for i in range(response)]
    ids = [(7 * i + 3) % VOCAB for i in range(prompt + response)]
    return Example(ids[:prompt], ids[prompt:], values, complete)


def batch_of(*examples, trim=False):
    return collate(examples, CANVAS, 1, np.random.default_rng(0), trim=trim)


def test_training_mode_equals_inference_mode(model):
    """Prompts of unequal lengths, some beyond the sliding window of 16, padded in one batch."""
    examples = [example(5, 4), example(23, CANVAS), example(40, 3 * CANVAS)]
    batch = batch_of(*examples)
    encode = EncodeBatch(model.config, batch.tokens.shape[1], model.device)
    positions = torch.arange(batch.tokens.shape[1]).expand_as(batch.tokens)
    encoded = model.backbone(model.backbone.embed(batch.tokens), positions, encode, causal=True)
    canvas = torch.randint(VOCAB, batch.canvas.shape, generator=torch.Generator().manual_seed(0))
    soft = torch.randn(*canvas.shape, model.config.hidden_size)
    attend = DenoiseBatch(model.config, encode.stored, batch.prefix, CANVAS)
    embedded = model.backbone.self_conditioning.condition(model.backbone.embed(canvas), soft)
    hidden = model.backbone(embedded, batch.prefix[:, None] + torch.arange(CANVAS), attend, causal=False)
    for b, one in enumerate(examples):
        ids = torch.tensor([one.prompt + one.response])
        cache = model.new_cache()
        alone = model.encode(ids, cache)
        assert torch.allclose(encoded[b, : ids.shape[1]], alone[0], atol=1e-4)
        cache = model.new_cache()
        model.encode(ids[:, : batch.prefix[b]], cache)
        expected = model.denoise_hidden(canvas[b : b + 1], cache, soft[b : b + 1])
        assert torch.allclose(hidden[b], expected[0], atol=1e-4)


def test_cross_entropy_and_its_gradients():
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(600, 12, generator=generator) * 4).requires_grad_()
    embedding = (torch.randn(37, 12, generator=generator) * 3).requires_grad_()
    targets = torch.randint(37, (600,), generator=generator)
    weight = torch.rand(600, generator=generator)
    loss, rows = weighted_cross_entropy(hidden, embedding, targets, weight, CAP)
    (3 * loss).backward()
    got = hidden.grad.clone(), embedding.grad.clone()
    hidden.grad = embedding.grad = None
    expected = F.cross_entropy(softcap(hidden @ embedding.T, CAP), targets, reduction="none")
    (3 * (expected * weight).sum()).backward()
    assert torch.allclose(rows, expected, atol=1e-5)
    assert torch.allclose(got[0], hidden.grad, atol=1e-4)
    assert torch.allclose(got[1], embedding.grad, atol=1e-3)


@pytest.mark.parametrize("weighted", [True, False])
def test_norm_gradients(weighted):
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True) if weighted else None
    # The norm computes in float32, so finite differences need room.
    out = rms_norm(x, weight, 1e-6)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    got = x.grad.clone(), None if weight is None else weight.grad.clone()
    x.grad = None
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    if weight is not None:
        weight.grad = None
        plain = plain * weight
    plain.backward(gradient)
    assert torch.allclose(out, plain, atol=1e-5)
    assert torch.allclose(got[0], x.grad, atol=1e-5)
    if weight is not None:
        assert torch.allclose(got[1], weight.grad, atol=1e-4)


def test_experts_against_a_plain_loop():
    """Some experts get no row, one gets most; gradients too."""
    torch.manual_seed(0)
    x = torch.randn(11, 6, requires_grad=True)
    gate_up = torch.randn(5, 8, 6, requires_grad=True)
    down = torch.randn(5, 6, 4, requires_grad=True)
    weight = torch.rand(11, 2, requires_grad=True)
    index = torch.tensor([[0, 3]] * 10 + [[4, 0]])
    leaves = (x, gate_up, down, weight)
    gradient = torch.randn(11, 6)
    out = experts(x, index, weight, gate_up, down)
    got = torch.autograd.grad(out, leaves, gradient)
    rows = []
    for n in range(11):
        total = torch.zeros(6)
        for a in range(2):
            gate, up = (gate_up[index[n, a]] @ x[n]).chunk(2)
            total = total + weight[n, a] * (down[index[n, a]] @ (F.gelu(gate, approximate="tanh") * up))
        rows.append(total)
    expected = torch.stack(rows)
    assert torch.allclose(out, expected, atol=1e-5)
    for mine, plain in zip(got, torch.autograd.grad(expected, leaves, gradient), strict=True):
        assert torch.allclose(mine, plain, atol=1e-4)


def test_corruption_replaces_a_share_t_of_each_example():
    canvas = torch.full((200, 500), 7)
    noisy, t = corrupt(canvas, 1000, torch.Generator().manual_seed(0))
    share = (noisy != canvas).float().mean(1)
    assert torch.allclose(share, t, atol=0.08)
    assert float(t.min()) < 0.05
    assert float(t.max()) > 0.95
    replaced = noisy[noisy != 7]
    assert int(replaced.max()) > 980
    assert int(replaced.min()) < 20


def test_the_loss_repeats_with_its_generator_and_supervises_what_it_should(model):
    model.requires_grad_(True)
    batch = batch_of(example(5, 4), example(9, 6))
    losses = [
        float(loss_of(model, batch, torch.Generator().manual_seed(s), Objective())[0].detach()) for s in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]
    loss, parts = loss_of(model, batch, torch.Generator().manual_seed(1), Objective(causal_weight=0.5))
    assert float(loss.detach()) == pytest.approx(float(parts["diffusion"] + 0.5 * parts["causal"]), rel=1e-5)
    loss.backward()
    missing = [name for name, p in model.backbone.named_parameters() if p.grad is None]
    assert not missing
    model.zero_grad()
    model.requires_grad_(False)


def test_collate_fills_pads_and_marks():
    batch = batch_of(example(3, 2), example(1, 5))
    assert batch.tokens.shape == (2, 6)
    assert batch.lengths.tolist() == [5, 6]
    assert batch.prefix.tolist() == [3, 1]
    assert batch.canvas.shape == (2, CANVAS)
    assert batch.canvas[0].tolist() == [*example(3, 2).response, *[1] * (CANVAS - 2)]
    assert batch.scored.all()
    assert batch.causal[0].tolist() == [True] * 4 + [False] * 2
    assert batch.values[1].tolist() == [True, False, False, True, False, False, False, False]
    # The position before a response token predicts it.
    assert batch.causal_values[1].tolist() == [True, False, False, True, False, False]


def test_a_truncated_response_has_no_end_to_learn():
    batch = batch_of(example(3, 2, complete=False))
    assert batch.scored[0].tolist() == [True, True, *[False] * (CANVAS - 2)]


def test_a_long_response_scores_one_canvas_and_sees_those_before():
    starts = set()
    for seed in range(40):
        batch = collate([example(4, 2 * CANVAS + 3)], CANVAS, 1, np.random.default_rng(seed))
        start = int(batch.prefix[0]) - 4
        starts.add(start)
        length = min(CANVAS, 2 * CANVAS + 3 - start)
        assert batch.canvas[0, :length].tolist() == example(4, 2 * CANVAS + 3).response[start : start + length]
    assert starts == {0, CANVAS, 2 * CANVAS}


def test_trimming_keeps_every_response_token():
    batch = batch_of(example(3, 2), example(3, 4), trim=True)
    assert 4 <= batch.canvas.shape[1] <= CANVAS
    assert batch.canvas[1, :4].tolist() == example(3, 4).response


def test_buckets_hold_everything_once_and_alike():
    examples = [example(2, 1 + i % 7) for i in range(100)]
    batches = bucketed(examples, 8, np.random.default_rng(0))
    assert sorted(i for batch in batches for i in batch) == list(range(100))
    spread = [len({len(examples[i].response) for i in batch}) for batch in batches]
    assert sum(spread) / len(spread) < 3
