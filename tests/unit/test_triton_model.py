"""The model's own modules with the Triton forms that they pick on a GPU, run by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from checkpoints import write_checkpoint
    from redraft.kernels import attention, norm
    from redraft.kernels.triton import attention as fast_attention
    from redraft.kernels.triton import norm as fast_norm
    from redraft.model.checkpoint import load_model

interpreted = loop_bounds
ON_GPU = (attention, norm)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """From its call on, tensors are said to lie on a GPU; a kernel that fails warns, which pytest makes an error."""

    def call():
        for module in ON_GPU:
            monkeypatch.setattr(module, "on_gpu", lambda *_: True)
        monkeypatch.setattr("redraft.kernels.triton.fallback._failed", set())

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_checkpoint(tmp_path_factory.mktemp("gpu")), dtype=torch.float32)


def test_both_modes_of_the_model(model, as_on_a_gpu, monkeypatch):
    ids = torch.arange(5, 16)[None]
    canvas = torch.arange(20, 20 + model.config.canvas_length)[None]

    def both():
        cache = model.new_cache()
        return model.encode(ids, cache), model.denoise_hidden(canvas, cache)

    expected, calls = both(), []
    as_on_a_gpu()
    for module, name in (
        (fast_norm, "norm_add_triton"),
        (fast_norm, "norm_heads_triton"),
        (fast_attention, "attention_triton"),
    ):
        call = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, call=call, name=name, **options: calls.append(name) or call(*given, **options)
        )
    for found, meant in zip(both(), expected, strict=True):
        # float32 on both sides, through all layers.
        torch.testing.assert_close(found, meant, atol=1e-4, rtol=1e-4)
    layers = len(model.backbone.layers)
    assert calls.count("norm_heads_triton") == 2 * layers
    assert calls.count("norm_add_triton") == 6 * layers
    # An encoded prompt has a mask, which is torch's, and so are heads of 8.
    wide = sum(layer.head_dim >= 16 for layer in model.config.layers)
    assert calls.count("attention_triton") == wide > 0


def test_gradients_are_torchs(model, as_on_a_gpu):
    norm_of = model.backbone.layers[0].post_attention_layernorm
    x, residual = torch.randn(2, 3, model.config.hidden_size, generator=torch.Generator().manual_seed(0)).unbind(0)
    expected = residual + norm_of(x)
    as_on_a_gpu()
    x.requires_grad_()
    found = norm_of.added(x, residual)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert x.grad is not None
