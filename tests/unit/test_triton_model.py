"""The model's own modules with the Triton forms that they pick on a GPU, run by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from checkpoints import write_checkpoint
    from redraft.checkpoint.load import load_model
    from redraft.kernels import attention, experts, norm
    from redraft.kernels.experts import experts_int4
    from redraft.kernels.matrices.int4 import Int4Matrix, quantise_int4
    from redraft.kernels.triton import attention as fast_attention
    from redraft.kernels.triton import norm as fast_norm
    from redraft.kernels.triton.packed import PackedInt4, unpack_int4
    from redraft.placement import quantized

interpreted = loop_bounds
ON_GPU = (attention, experts, norm, quantized)


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


def int4_stack(experts, rows, columns):
    generator = torch.Generator().manual_seed(rows)
    stack = torch.randn(experts, rows, columns, generator=generator) * columns**-0.5
    data, scale, row_scale = (torch.stack(parts) for parts in zip(*map(quantise_int4, stack), strict=True))
    return Int4Matrix(data=data, scale=scale, row_scale=row_scale)


def test_int4_experts_are_packed_where_they_are_placed(as_on_a_gpu):
    """The stored form is dropped, and the packed module is the reference of the stored weights."""
    E, I, D = 8, 32, 64
    wide, narrow = int4_stack(E, 2 * I, D), int4_stack(E, D, I)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, D, generator=generator).bfloat16()
    index = torch.rand(5, E, generator=generator).argsort(-1)[:, :2]
    weight = torch.rand(5, 2, generator=generator)
    expected = experts_int4(x, index, weight, wide, narrow).float()
    backbone = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Module()])})
    names = [f"layers.0.experts.{name}" for name in ("gate_up_proj", "down_proj")]

    def placed(dtype):
        matrices = dict(zip(names, (wide, narrow), strict=True))
        quantized.place(backbone, matrices, dtype)
        assert not matrices
        return backbone.get_submodule("layers.0.experts")

    on_a_cpu = placed(torch.bfloat16)
    assert (on_a_cpu.gate_up, on_a_cpu.down) == (wide, narrow)
    as_on_a_gpu()
    assert placed(torch.float32).gate_up is wide
    module = placed(torch.bfloat16)
    assert isinstance(module.gate_up, PackedInt4)
    assert isinstance(module.down, PackedInt4)
    assert (module.gate_up.paired, module.down.paired) == (True, False)
    assert torch.equal(unpack_int4(module.gate_up).data, wide.data)
    # The reference rounds rows to int8 twice, about a hundredth of them each time; the interpreter cuts bfloat16 off.
    found = module(x, index, weight).float()
    assert float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max()) < 2.0**-5
    exact = experts.experts(x.float(), index, weight, wide.all_dequantised(), narrow.all_dequantised())
    assert float(((found - exact).norm(dim=-1) / exact.norm(dim=-1)).max()) < 3 * 2.0**-8
