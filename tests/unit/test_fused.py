"""A denoising step in few launches against the modules that it stands for, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interpreted import interpreting, loop_bounds

with interpreting():
    from checkpoints import write_checkpoint
    from redraft.checkpoint.load import load_model
    from redraft.kernels import int8
    from redraft.kernels.experts import experts as kernel
    from redraft.kernels.triton.packed import pack_int4
    from redraft.model.attend import Denoise
    from redraft.placement.canvas_cache import CanvasCache, DenoiseStatic, EncodeStatic
    from redraft.placement.dense import Dense, UnfitError
    from redraft.placement.fused import FusedBackbone
    from redraft.placement.quantized import Float8Linear, Int4Experts, experts_of
    from redraft.placement.runner import place_runner

interpreted = loop_bounds
LAYERS = {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
# Experts of a width and rows that int4 blocks divide.
INT4 = {"hidden_size": 64, "moe_intermediate_size": 64}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Int8 matrices lie as they do on a GPU."""
    monkeypatch.setattr(int8, "has_exact_products", lambda: False)
    monkeypatch.setattr(int8, "dot_lanes", lambda: 0)
    monkeypatch.setattr(int8, "runs_natively", lambda *_, **__: False)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    return {
        "plain": write_checkpoint(tmp_path_factory.mktemp("plain"), **LAYERS),
        "int4": write_checkpoint(tmp_path_factory.mktemp("int4"), **LAYERS, **INT4),
    }


def load(directories, form):
    return load_model(
        directories["int4" if form == "int4" else "plain"], dtype=torch.float32, quantize=form, in_memory=True
    )


def inputs(model, batch):
    """(canvas, a cache of rows of several lengths, a soft embedding whose first row is without signal)."""
    generator = torch.Generator().manual_seed(batch)
    V, L, D = model.config.vocab_size, model.config.canvas_length, model.config.hidden_size
    cache, lengths = model.new_cache(batch), [3 + 11 * row for row in range(batch)]
    model.encode(torch.randint(0, V, (batch, max(lengths)), generator=generator), cache, lengths)
    soft = torch.randn(batch, L, D, generator=generator)
    soft[0] = 0
    return torch.randint(0, V, (batch, L), generator=generator), cache, soft


class Widened(nn.Module):
    """Int4 experts whose rows are not rounded, as they are not on a GPU."""

    def __init__(self, experts):
        super().__init__()
        stacks = experts.gate_up, experts.down
        self.weights = [torch.stack([m.dequantised(e) for e in range(len(m.data))]) for m in stacks]

    def forward(self, x, index, weight):
        return kernel(x, index, weight, *self.weights)


def pack_experts(model):
    """Experts as they lie on a GPU, by layer; in their places what they stand for."""
    packed = []
    for layer in model.backbone.layers:
        experts = layer.experts
        assert isinstance(experts, Int4Experts)
        wide, narrow = (
            pack_int4(m, order="wgmma", paired=p) for m, p in ((experts.gate_up, True), (experts.down, False))
        )
        packed.append(experts_of(wide, narrow))
        layer.experts = Widened(experts)
    return packed


def static(model, cache):
    found = CanvasCache(model.config, len(cache.sequences), 64, model.dtype, model.device)
    for row, sequence in enumerate(cache.sequences):
        found.fill(row, sequence)
    return found


@pytest.mark.parametrize(
    ("form", "batch", "tolerance"), [(None, 2, 1e-4), ("fp8", 1, 1e-4), ("int8", 1, 2e-2), ("int4", 2, 2e-2)]
)
def test_hidden_states_are_those_of_the_modules(directories, form, batch, tolerance):
    model = load(directories, form)
    canvas, cache, soft = inputs(model, batch)
    packed = pack_experts(model) if form == "int4" else None
    expected = [model.denoise_hidden(canvas, cache, signal) for signal in (None, soft)]
    if packed is not None:
        for layer, experts in zip(model.backbone.layers, packed, strict=True):
            layer.experts = experts
    fused = FusedBackbone(model.backbone)
    prefixes = static(model, cache)
    for signal, meant in zip((None, soft), expected, strict=True):
        found = fused(canvas, cache.lengths, Denoise(cache), signal)
        assert found.shape == meant.shape
        # Sums that are rounded to int8 may fall on the other side of a half.
        assert (found - meant).norm() <= tolerance * meant.norm()
        found = fused(canvas, prefixes.lengths, DenoiseStatic(prefixes), signal)
        assert (found - meant).norm() <= tolerance * meant.norm()
        if form != "int4":
            # The modules hold parts of the joint matrices, and say the same as before.
            again = model.denoise_hidden(canvas, cache, signal)
            torch.testing.assert_close(again, meant, atol=1e-4, rtol=1e-4)


def test_a_committed_canvas_is_encoded_the_same(directories):
    model = load(directories, "fp8")
    canvas, cache, _ = inputs(model, 1)
    prefixes = static(model, cache)
    attend, again = (EncodeStatic(prefixes, canvas.shape[1]) for _ in range(2))
    expected = model.encode_with(canvas, prefixes.lengths, attend)
    found = FusedBackbone(model.backbone)(canvas, prefixes.lengths, again, causal=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for one, other in zip(again.new_keys + again.new_values, attend.new_keys + attend.new_values, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_rows_in_e4m3_stay_near(directories, monkeypatch):
    model = load(directories, "fp8")
    canvas, cache, soft = inputs(model, 2)
    expected = model.denoise_hidden(canvas, cache, soft)
    of = Dense.of.__func__
    monkeypatch.setattr(Dense, "of", classmethod(lambda cls, modules: of(cls, modules, "float8")))
    fused = FusedBackbone(model.backbone)
    assert fused.layers[0].self_attn.rounded == torch.float8_e4m3fn
    prefixes = static(model, cache)
    found = fused(canvas, prefixes.lengths, DenoiseStatic(prefixes), soft)
    # Activations have three bits of mantissa, and so one row in ten goes to another expert.
    assert 1e-3 < (found - expected).norm() / expected.norm() < 0.3


def test_joint_matrices_are_held_once(directories):
    for form in (None, "int8", "fp8"):
        attention = load(directories, form).backbone.layers[0].self_attn
        modules = [attention.q_proj, attention.k_proj, attention.v_proj]
        x = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
        before = [module(x) for module in modules]
        made = Dense.of(modules)
        held = {
            None: lambda m: m.weight,
            "int8": lambda m: m.packed.data,
            "fp8": lambda m: m.matrix.data,
        }[form]  # fmt: skip
        assert {held(m).untyped_storage().data_ptr() for m in modules} == {made.weight.untyped_storage().data_ptr()}
        for module, result in zip(modules, before, strict=True):
            assert torch.equal(module(x), result)


def test_matrices_of_several_forms_do_not_join(directories):
    linear = nn.Linear(48, 8, bias=False)
    other = load(directories, "fp8").backbone.layers[0].mlp.up_proj
    assert isinstance(other, Float8Linear)
    with pytest.raises(UnfitError, match="Float8Linear, Linear"):
        Dense.of([linear, other])
    with pytest.raises(UnfitError, match="Tanh"):
        Dense.of([nn.Tanh()])


def test_a_model_runs_them_where_it_is_a_gpus(directories, monkeypatch):
    model = load(directories, None)
    canvas, cache, soft = inputs(model, 1)
    assert model.runner is None
    expected = model.denoise_hidden(canvas, cache, soft)
    monkeypatch.setattr("redraft.placement.runner.on_gpu", lambda *_: True)
    place_runner(model)
    assert model.runner is None, "in float32 it is the modules that run"
    monkeypatch.setattr(type(model), "dtype", property(lambda _: torch.bfloat16))
    place_runner(model)
    called = []
    monkeypatch.setattr(
        "redraft.placement.fused.FusedBackbone.forward",
        lambda self, *given, forward=FusedBackbone.forward: called.append(given) or forward(self, *given),
    )
    torch.testing.assert_close(model.denoise_hidden(canvas, cache, soft), expected, atol=1e-4, rtol=1e-4)
    assert len(called) == 1
    with model.by_modules():
        assert torch.equal(model.denoise_hidden(canvas, cache, soft), model.denoise_hidden(canvas, cache, soft))
    assert len(called) == 1
    assert isinstance(model.runner, FusedBackbone)
    assert not any("fused" in name for name in model.state_dict())


def test_a_model_that_does_not_fit_runs_its_modules(directories, monkeypatch):
    model = load(directories, "fp8")
    model.backbone.layers[1].mlp.up_proj = nn.Linear(48, 40, bias=False)
    monkeypatch.setattr("redraft.placement.runner.on_gpu", lambda *_: True)
    monkeypatch.setattr(type(model), "dtype", property(lambda _: torch.bfloat16))
    place_runner(model)
    assert model.runner is None
