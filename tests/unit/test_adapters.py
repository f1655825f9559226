"""Adapters in a model: their gradients through every form of weights, both modes, one a mode, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import redraft
from checkpoints import CANVAS, VOCAB, write_checkpoint
from redraft.adapters.adapter import Adapter
from redraft.adapters.attach import attach
from redraft.adapters.base import differs, fingerprint
from redraft.adapters.merge import added
from redraft.adapters.modules import AdaptedExperts, AdaptedLinear
from redraft.adapters.settings import GROUPS, Settings, is_stack, targeted
from redraft.checkpoint.save import save_checkpoint
from redraft.core.errors import CheckpointError, OptionError
from redraft.placement.conveyor import ConveyedExperts
from redraft.placement.quantized import Float8Linear, FrozenExperts, Int8Embedding, Int8Linear
from redraft.train.collate import collate
from redraft.train.examples import Example
from redraft.train.objective import Objective, loss_of

# Where int4 experts fit, and D, I and 2I differ.
SHAPE = {"hidden_size": 96, "moe_intermediate_size": 32, "num_hidden_layers": 2}
LAYERS = ["sliding_attention", "full_attention"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("adapters"), gain=0.05, layer_types=LAYERS, **SHAPE)


@pytest.fixture
def model(checkpoint):
    return redraft.load_model(checkpoint)


def adapter_for(model, targets=tuple(GROUPS), **settings):
    """One that changes something."""
    made = Adapter.fresh(Settings(targets=targets, rank=3, alpha=6.0, **settings), model.config, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in made.named_parameters():
        if name.endswith(".b"):
            parameter.data.normal_(generator=generator).mul_(0.1)
    return made


def logits_of(model):
    """Of both modes, the second with and without signal."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(VOCAB, (1, 30), generator=generator)
    canvas = torch.randint(VOCAB, (1, CANVAS), generator=generator)
    soft = torch.randn(1, CANVAS, model.config.hidden_size, generator=generator)
    cache = model.new_cache()
    causal = model.logits(model.encode(ids, cache))
    return causal, model.denoise(canvas, cache), model.denoise(canvas, cache, soft)


def gap(left, right):
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


def gradients(model, attached):
    ids = [(7 * i + 3) % VOCAB for i in range(60)]
    examples = [Example(ids[:20], ids[20:30], [False] * 10, True), Example(ids[5:45], ids[45:55], [False] * 10, True)]
    batch = collate(examples, CANVAS, 1, np.random.default_rng(0))
    attached.dropout.begin(5)
    objective = Objective(self_conditioning=1.0)
    loss, _ = loss_of(model, batch, torch.Generator().manual_seed(4), objective)
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in attached.adapter.named_parameters()}


def widened(checkpoint, quantised):
    """The model whose weights are what the quantised one's stand for."""
    model = redraft.load_model(checkpoint)
    with torch.no_grad():
        for name, module in quantised.backbone.named_modules():
            own = model.backbone.get_submodule(name)
            if isinstance(module, Int8Linear):
                own.weight.copy_(module.packed.unpacked().dequantised())
            elif isinstance(module, (Float8Linear, Int8Embedding)):
                own.weight.copy_(module.matrix.dequantised())
            elif isinstance(module, FrozenExperts):
                for stack, into in ((module.gate_up, own.gate_up_proj), (module.down, own.down_proj)):
                    if isinstance(stack, list):
                        into.copy_(torch.stack([part.unpacked().dequantised() for part in stack]))
                    else:
                        into.copy_(stack.all_dequantised() if hasattr(stack, "row_scale") else stack.dequantised())
    return model


@pytest.mark.parametrize("form", ["int8", "int4", "fp8"])
def test_gradients_through_quantised_weights_are_those_of_the_widened_ones(checkpoint, form, monkeypatch):
    """Bit for bit. Passes without gradients round rows, which is another matter: the signal here is given to both."""
    quantised = redraft.load_model(checkpoint, quantize=form)
    plain = widened(checkpoint, quantised)
    signal = torch.randn(2, CANVAS, SHAPE["hidden_size"], generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr("redraft.train.objective.go_ahead", lambda model, noisy, *_, **__: (noisy, signal))
    left, right = (attach(m, adapter_for(m), learning=True) for m in (quantised, plain))
    (loss, ours), (expected_loss, expected) = gradients(quantised, left), gradients(plain, right)
    assert torch.equal(loss, expected_loss)
    assert ours.keys() == expected.keys()
    assert len(ours) == 2 * len(targeted(left.adapter.settings, plain.config))
    for name, gradient in ours.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, expected[name]), name


@pytest.mark.parametrize("shared", [False, True])
def test_gradients_are_those_of_changed_weights(checkpoint, shared):
    """Autograd through W + s B A, weights and all, on the modules without an adapter."""
    model, other = redraft.load_model(checkpoint), redraft.load_model(checkpoint)
    attached = attach(model, adapter_for(model, shared_experts=shared), learning=True)
    loss, ours = gradients(model, attached)
    adapter = adapter_for(other, shared_experts=shared)
    for name, pair in adapter.denoise.items():
        owner, _, parameter = name.rpartition(".")
        module = other.backbone.get_submodule(owner)
        weight = module._parameters.pop(parameter)
        setattr(module, parameter, weight.detach() + pair.factors.delta())
    reference = type(attached)(
        adapter=adapter, dropout=attached.dropout, _model=other, _replaced={}, _runner=None, _forget=lambda: None
    )
    expected_loss, expected = gradients(other, reference)
    assert abs(loss - expected_loss) < 1e-6 * expected_loss
    for name, gradient in ours.items():
        error = (gradient - expected[name]).norm() / expected[name].norm()
        assert error < 2e-5, f"{name}: {error:.1e}"


def test_no_weight_of_the_base_learns(model):
    attached = attach(model, adapter_for(model), learning=True)
    gradients(model, attached)
    learning = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert len(learning) == 2 * len(attached.adapter.denoise)
    assert all(p.grad is None for n, p in model.backbone.named_parameters() if n not in learning)


@pytest.mark.parametrize("target", GROUPS)
@pytest.mark.parametrize("shared", [False, True])
def test_merged_is_unmerged(model, target, shared):
    # Logits of some ten units: at 28 a last bit is 2e-6.
    model.backbone.norm.weight.data *= 0.3
    before = logits_of(model)
    adapter = adapter_for(model, [target], shared_experts=shared)
    attached = attach(model, adapter)
    unmerged = logits_of(model)
    attached.detach()
    assert gap(logits_of(model), before) == 0
    parameters = dict(model.backbone.named_parameters())
    for name, pair in adapter.denoise.items():
        parameters[name].data = added(parameters[name].data, pair)[1]
    assert gap(logits_of(model), unmerged) <= 1e-5
    assert gap(unmerged, before) > 0.01


@pytest.mark.parametrize("form", ["int8", "int4", "fp8"])
def test_an_adapter_beside_quantised_weights_does_what_it_does_beside_widened_ones(checkpoint, form):
    """As near as the quantised model is to its widened weights without one."""
    quantised = redraft.load_model(checkpoint, quantize=form)
    plain = widened(checkpoint, quantised)
    rounding = gap(logits_of(quantised), logits_of(plain))
    before = logits_of(quantised)
    for model in (quantised, plain):
        attach(model, adapter_for(model))
    assert gap(logits_of(quantised), logits_of(plain)) < max(3 * rounding, 1e-4) < gap(logits_of(quantised), before)


def test_one_adapter_a_mode(model):
    """Each mode as with its own, on the keys and values that the causal one has left."""
    first, second = adapter_for(model), adapter_for(model)
    for _, parameter in second.named_parameters():
        parameter.data *= -1.5
    own = {n: pair for n, pair in first.denoise.items() if not n.startswith("self_conditioning.")}
    two = Adapter(settings=first.settings, encode=own, denoise=second.denoise)
    assert not two.is_one
    assert first.is_one
    ids, canvas = torch.arange(20)[None], torch.arange(CANVAS)[None]
    expected = []
    cache = model.new_cache()
    attached = attach(model, first)
    expected.append(model.encode(ids, cache))
    attached.detach()
    attached = attach(model, second)
    expected.append(model.denoise_hidden(canvas, cache))
    attached.detach()
    attached, cache = attach(model, two), model.new_cache()
    got = [model.encode(ids, cache), model.denoise_hidden(canvas, cache)]
    assert gap(got, expected) == 0
    # Both modes in one forward.
    cache = model.new_cache()
    model.encode(ids[:, :12], cache)
    together = model.encode_then_denoise(ids[0, 12:], canvas, cache.sequences[0])
    assert gap([together], expected[1:]) < 1e-5
    attached.detach()
    assert gap([model.denoise_hidden(canvas, cache)], expected[1:]) > 0.1


def test_keys_and_values_of_full_layers_have_one_pair(model):
    assert "layers.1.self_attn.v_proj.weight" not in adapter_for(model, ["attention"]).denoise
    attached = attach(model, adapter_for(model, ["layers.1.self_attn.k_proj"]))
    assert list(attached.adapter.denoise) == ["layers.1.self_attn.k_proj.weight"]
    seen = []
    model.backbone.layers[1].self_attn.k_proj.register_forward_hook(lambda *_: seen.append(1))
    logits_of(model)
    assert len(seen) == 3


def test_ranks_and_weights_by_pattern(model):
    settings = Settings(
        targets=["attention", "experts"],
        rank=4,
        alpha=8,
        rank_pattern={"experts": 2, r"layers\.0\.self_attn\.q_proj": 1},
        alpha_pattern={"k_proj": 2},
    )
    pairs = Adapter.fresh(settings, model.config).denoise
    ranks = {name: pair.a.shape[-2] for name, pair in pairs.items()}
    assert ranks["layers.0.experts.gate_up_proj"] == ranks["layers.1.experts.down_proj"] == 2
    assert (ranks["layers.0.self_attn.q_proj.weight"], ranks["layers.1.self_attn.q_proj.weight"]) == (1, 4)
    assert pairs["layers.0.self_attn.k_proj.weight"].scale == 0.5
    assert pairs["layers.0.experts.down_proj"].scale == 4
    assert (
        Adapter.fresh(Settings(rank=4, alpha=8, rslora=True), model.config).denoise["layers.0.mlp.up_proj.weight"].scale
        == 4
    )
    assert all(pair.b.abs().max() == 0 for pair in pairs.values())
    a = pairs["layers.0.self_attn.o_proj.weight"].a
    assert 0.9 < float(a.detach().abs().max()) * a.shape[1] ** 0.5 <= 1


def test_shared_experts_have_the_factors_of_the_residual_stream_in_common(model):
    pairs = adapter_for(model, ["experts"], shared_experts=True).denoise
    wide, narrow = pairs["layers.0.experts.gate_up_proj"], pairs["layers.0.experts.down_proj"]
    assert [len(factor) for factor in (wide.a, wide.b, narrow.a, narrow.b)] == [1, 8, 8, 1]


def test_dropout_follows_from_its_seed_and_ends_with_gradients(model):
    attached = attach(model, adapter_for(model, ["attention"], dropout=0.5), learning=True)
    (_, first), (_, again) = gradients(model, attached), gradients(model, attached)
    # They are summed.
    assert all(torch.equal(first[name], again[name]) for name in first)
    for _, parameter in attached.adapter.named_parameters():
        parameter.grad = None
    loss, _ = gradients(model, attached)
    attached.dropout.rate = 0.0
    without, _ = gradients(model, attached)
    assert loss != without
    attached.dropout.rate = 0.5
    undropped = logits_of(model)
    attached.dropout.rate = 0.0
    assert gap(logits_of(model), undropped) == 0


def test_putting_in_and_taking_out(model, tmp_path):
    adapter = adapter_for(model)
    attached = attach(model, adapter)
    for other in (adapter, adapter_for(model, ["router"])):
        with pytest.raises(OptionError, match="there is an adapter in this model"):
            attach(model, other)
    with pytest.raises(CheckpointError, match="an adapter is in this model"):
        save_checkpoint(model, tmp_path)
    kinds = {type(module) for module in model.backbone.modules()}
    assert {AdaptedLinear, AdaptedExperts} <= kinds
    attached.detach()
    assert not {AdaptedLinear, AdaptedExperts} & {type(module) for module in model.backbone.modules()}


def test_experts_that_are_elsewhere_cannot_be_trained_through(model):
    layer = model.backbone.layers[1]
    layer.experts = ConveyedExperts.__new__(ConveyedExperts)
    nn.Module.__init__(layer.experts)
    attach(model, adapter_for(model, ["attention"])).detach()
    with pytest.raises(OptionError, match="layer 1 cannot be trained through: experts lie on disk"):
        attach(model, adapter_for(model, ["attention"]), learning=True)
    with pytest.raises(OptionError, match=r"layers\.1\.experts cannot be adapted"):
        attach(model, adapter_for(model, ["experts"]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "rank must be an integer of at least 1, got 0"),
        ({"rank_pattern": {"experts": 0}}, r"rank_pattern\['experts'\] must be an integer of at least 1"),
        ({"rank_pattern": [1]}, r"rank_pattern must be a mapping, got \[1\]"),
        ({"rank_pattern": {"experts": 4}}, "pattern 'experts' matches none of the targets"),
        ({"alpha_pattern": {"(": 4}}, r"'\(' is no regular expression"),
        ({"alpha": 0}, "alpha must be above 0, got 0"),
        ({"dropout": 1.0}, "dropout must be below 1"),
        ({"dropout": 0.1, "targets": ["experts"]}, "dropout cannot go with experts"),
        ({"targets": []}, "targets must be a list of groups or modules"),
        ({"targets": "attention"}, "targets must be a list of groups or modules, got 'attention'"),
        ({"targets": ["qproj"]}, "target 'qproj' is no module here: give 'attention', 'dense'"),
        ({"targets": ["embed_tokens"]}, "target 'embed_tokens' is not offered: it is the head"),
        ({"targets": ["lm_head"]}, "target 'lm_head' is not offered"),
        ({"targets": ["all-linear"]}, "takes the vision tower"),
        ({"targets": ["router.per_expert_scale"]}, "per_expert_scale' is not offered: it stays as it is"),
        ({"kind": "dora"}, "kind 'dora' is not offered: its norms are those of the widened weights"),
        ({"kind": "PiSSA"}, "kind 'PiSSA' is not offered: it changes the base"),
        ({"kind": "loftq"}, "kind 'loftq' is not offered: it changes the base"),
        ({"kind": "ia3"}, "kind must be 'lora', got 'ia3'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(model, settings, said):
    with pytest.raises(OptionError, match=said) as caught:
        Adapter.fresh(Settings(**settings), model.config)
    assert "\n" not in str(caught.value)


def test_an_adapter_belongs_to_its_base(checkpoint, tmp_path, model):
    adapter = adapter_for(model)
    adapter.base = fingerprint(model)
    attach(model, adapter).detach()
    other = redraft.load_model(checkpoint)
    other.backbone.layers[0].mlp.up_proj.weight.data *= 1.1
    with pytest.raises(CheckpointError, match="made for another base"):
        attach(other, adapter)
    other = redraft.load_model(checkpoint)
    other.backbone.layers[1].experts.down_proj.data *= 1.1
    with pytest.raises(CheckpointError, match="made for another base"):
        attach(other, adapter)
    quantised = redraft.load_model(checkpoint, quantize="int4")
    with pytest.warns(UserWarning, match="tuned on this base as float"):
        attach(quantised, adapter).detach()
    quantised.backbone.norm.weight.data *= 1.1
    with pytest.raises(CheckpointError, match="made for another base"):
        attach(quantised, adapter)
    small = write_checkpoint(tmp_path, layer_types=LAYERS, **SHAPE | {"hidden_size": 48, "moe_intermediate_size": 16})
    adapter.base = {}
    with pytest.raises(CheckpointError, match=r"q_proj.weight' are \[3, 96\] and .* made for another shape"):
        attach(redraft.load_model(small), adapter)


def test_a_fingerprint_is_the_same_in_bfloat16_and_beside_streamed_experts(checkpoint, model):
    here = fingerprint(model)
    assert fingerprint(redraft.load_model(checkpoint, dtype=torch.bfloat16)) == here
    streamed = fingerprint(redraft.load_model(checkpoint, streamed=frozenset({1})))
    assert streamed["experts"] == ""
    assert not differs(here, streamed)
    quantised = [fingerprint(redraft.load_model(checkpoint, quantize=form)) for form in ("int8", "int4", "fp8")]
    assert {found["family"] for found in quantised} == {here["family"]}
    assert len({found["experts"] for found in [here, *quantised]}) == 4


def test_targets_are_groups_or_ends_of_paths(model):
    found = targeted(Settings(targets=["experts", "mlp.down_proj"]), model.config)
    assert {name.split(".", 2)[2] for name in found} == {
        "experts.gate_up_proj",
        "experts.down_proj",
        "mlp.down_proj.weight",
    }
    assert all(len(shape) == 2 + is_stack(name) for name, shape in found.items())
