"""Adapters on disk: what is written comes back, others' names are understood, and every tensor is used or named."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from checkpoints import CANVAS, VOCAB, edit_json, write_checkpoint
from redraft.adapters.adapter import Adapter
from redraft.adapters.attach import attach
from redraft.adapters.base import fingerprint, fingerprint_of
from redraft.adapters.files import WEIGHTS, flat_factors, stacked_factors, write_adapter
from redraft.adapters.merge import merge
from redraft.adapters.peft_config import CONFIG
from redraft.adapters.read import read_adapter
from redraft.adapters.settings import GROUPS, Settings
from redraft.checkpoint.convert import quantize
from redraft.checkpoint.rounding import RECIPES
from redraft.checkpoint.source import Source
from redraft.cli import main
from redraft.core.errors import CheckpointError, ModelNotFoundError

LAYERS = ["sliding_attention", "full_attention"]
DECODER, ENCODER = "base_model.model.model.decoder.", "base_model.model.model.encoder.language_model."
QUERIES = "layers.0.self_attn.q_proj"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("files"), gain=0.05, num_hidden_layers=2, layer_types=LAYERS)


@pytest.fixture(scope="module")
def config(checkpoint):
    return Source.open(checkpoint).config


def made(config, targets=tuple(GROUPS), **settings):
    adapter = Adapter.fresh(Settings(targets=targets, **{"rank": 3, "alpha": 6.0} | settings), config, seed=1)
    for number, (_, parameter) in enumerate(adapter.named_parameters()):
        parameter.data.normal_(generator=torch.Generator().manual_seed(number)).mul_(0.1)
    return adapter


@pytest.fixture
def written(config, tmp_path):
    write_adapter(made(config), config, tmp_path / "adapter", base="its/base")
    return tmp_path / "adapter"


def changed(directory, change):
    """The tensors of a file, changed in place; its metadata go."""
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, directory / WEIGHTS)
    return directory


def renamed(directory, rename):
    def change(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            if (new := rename(name)) is not None:
                tensors[new] = tensor

    return changed(directory, change)


def same(left, right):
    return left.keys() == right.keys() and all(left[name].equals(right[name]) for name in left)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rslora": True},
        {"shared_experts": True},
        {"rank_pattern": {"experts": 2, "router": 1}, "alpha_pattern": {"k_proj": 5.5, "dense": 1}},
        {"rank_pattern": {r"layers\.1\.mlp\.up_proj": 5, r"layers\.0\.experts\.down_proj": 1}},
    ],
)
def test_what_is_written_comes_back(config, tmp_path, settings):
    adapter = made(config, **settings)
    adapter.base = {"family": "1", "weights": "2", "experts": "3", "form": "int4"}
    write_adapter(adapter, config, tmp_path)
    again = read_adapter(tmp_path, config)
    assert again.is_one
    assert same(again.denoise, adapter.denoise)
    assert again.base == adapter.base
    assert again.encode.keys() == {name for name in adapter.denoise if not name.startswith("self_conditioning")}
    # Once more, from what was read.
    write_adapter(again, config, tmp_path / "again")
    assert same(read_adapter(tmp_path / "again", config).denoise, adapter.denoise)
    for folder in ("", "merge_config/"):
        first, second = (json.loads((tmp_path / way / folder / CONFIG).read_text()) for way in ("", "again"))
        assert first == second


def test_the_same_adapter_is_the_same_bytes(config, written, tmp_path):
    write_adapter(made(config), config, tmp_path / "second", base="its/base")
    for name in (WEIGHTS, CONFIG, f"merge_config/{CONFIG}"):
        assert (written / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_both_sides_have_names_and_the_merging_config_leaves_one_out(written):
    names = set(load_file(written / WEIGHTS))
    for factor in ("lora_A", "lora_B"):
        for module in (QUERIES, "layers.1.experts", "layers.1.experts.base_layer", "layers.0.router.proj"):
            assert {f"{DECODER}{module}.{factor}.weight", f"{ENCODER}{module}.{factor}.weight"} <= names
        assert f"{DECODER}self_conditioning.up_proj.{factor}.weight" in names
    assert not {name for name in names if name.startswith(ENCODER + "self_conditioning")}
    config, merging = (json.loads((written / folder / CONFIG).read_text()) for folder in ("", "merge_config"))
    assert config["target_parameters"] == ["experts.down_proj", "experts.gate_up_proj"]
    assert config["base_model_name_or_path"] == "its/base"
    assert all(name.startswith("model.decoder.") for name in merging["target_parameters"])
    assert merging["exclude_modules"] == r".*\.encoder\..*"
    assert "encoder" not in merging["target_modules"]


def test_factors_of_experts_are_laid_as_peft_lays_them(config):
    pair = made(config, ["experts"]).denoise["layers.0.experts.gate_up_proj"]
    a, b = flat_factors(pair, 8)
    assert (a.shape, b.shape) == ((24, 48), (32, 24))
    assert torch.equal(a[3 * 5 + 2], pair.a[5, 2])
    assert torch.equal(b[:, 2 * 8 + 5], pair.b[5, :, 2])
    assert all(map(torch.equal, stacked_factors(a, b, 8), (pair.a, pair.b)))


def test_sides_that_differ_are_two_adapters_which_are_not_merged(config, written, checkpoint, tmp_path):
    def change(tensors):
        tensors[f"{ENCODER}{QUERIES}.lora_B.weight"] *= 2

    two = read_adapter(changed(written, change), config)
    assert not two.is_one
    name = f"{QUERIES}.weight"
    assert torch.equal(two.encode[name].b, two.denoise[name].b * 2)
    assert two.encode["layers.1.experts.down_proj"] is two.denoise["layers.1.experts.down_proj"]
    with pytest.raises(CheckpointError, match="other factors in each mode, and a checkpoint has one set of weights"):
        merge(written, checkpoint, tmp_path / "out")
    with pytest.raises(CheckpointError, match="other factors in each mode is not written"):
        write_adapter(two, config, tmp_path / "again")


def test_a_decoder_alone_is_the_canvas_modes_unless_the_file_says_more(config, written):
    tensors = {n: t for n, t in load_file(written / WEIGHTS).items() if n.startswith(DECODER)}
    save_file(tensors, written / WEIGHTS, {"redraft_modes": "one adapter for both modes"})
    assert read_adapter(written, config).is_one
    save_file(tensors, written / WEIGHTS)
    with pytest.warns(UserWarning, match="the causal mode runs without it"):
        alone = read_adapter(written, config)
    assert not alone.encode
    assert same(alone.denoise, made(config).denoise)


@pytest.mark.parametrize("prefix", ["base_model.model.model.", "base_model.model.", "model.", "", "language_model."])
def test_one_stack_of_layers_means_both_modes(config, written, prefix):
    """As NeMo names it, with and without the outer prefix."""
    renamed(written, lambda name: None if name.startswith(ENCODER) else prefix + name.removeprefix(DECODER))
    found = read_adapter(written, config)
    assert found.is_one
    assert same(found.denoise, made(config).denoise)
    assert len(found.encode) == len(found.denoise) - 3


@pytest.mark.parametrize("only", [None, "gate_up_proj", "down_proj"])
def test_experts_of_older_files_stand_the_other_way_round(config, tmp_path, only):
    adapter = made(config, ["experts"] if only is None else [f"experts.{only}"])
    write_adapter(adapter, config, tmp_path)

    def turn(tensors):
        for name in [name for name in tensors if "lora_A" in name]:
            other = name.replace("lora_A", "lora_B")
            a, b = stacked_factors(tensors[name], tensors[other], 8)
            tensors[name] = b.transpose(1, 2).flatten(0, 1)
            tensors[other] = a.transpose(1, 2).permute(1, 2, 0).flatten(1)

    assert same(read_adapter(changed(tmp_path, turn), config).denoise, adapter.denoise)


def test_every_tensor_is_used_or_named(config, written):
    name = f"{DECODER}{QUERIES}.lora_A.weight"

    def check(change, said):
        before = (written / WEIGHTS).read_bytes()
        changed(written, change)
        with pytest.raises(CheckpointError, match=said) as caught:
            read_adapter(written, config)
        assert "\n" not in str(caught.value)
        (written / WEIGHTS).write_bytes(before)

    def both_gone(tensors):
        for factor in ("lora_A", "lora_B"):
            del tensors[name.replace("lora_A", factor)]

    def without_down(tensors):
        for full in [n for n in tensors if ".experts.lora" in n]:
            del tensors[full]

    check(lambda t: t.pop(name), rf"tensor '{name}' is missing, which '.*lora_B.weight' goes with")
    check(
        both_gone, r"factors of 'model.decoder.layers.0.self_attn.q_proj' are missing, which adapter_config.json asks"
    )
    check(without_down, r"factors of 'model.decoder.layers.0.experts.down_proj' are missing")
    for surplus in (
        "base_model.model.model.decoder.layers.0.self_attn.qkv_proj.lora_A.weight",
        "base_model.model.model.encoder.vision_tower.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.decoder.embed_tokens.lora_embedding_A",
        f"{DECODER}{QUERIES}.lora_magnitude_vector.weight",
        f"{ENCODER}self_conditioning.up_proj.lora_A.weight",
        f"{DECODER}{QUERIES}.base_layer.lora_A.weight",
    ):
        check(lambda t, n=surplus: t.update({n: torch.zeros(3, 48)}), f"tensor '{surplus}' belongs to no part")
    check(
        lambda t: t.update(
            {n.replace("layers.1", "layers.7"): t[n] for n in list(t) if QUERIES in n.replace("1", "0")}
        ),
        r"'layers.7.self_attn.q_proj.weight', which this model does not have",
    )
    check(lambda t: t.update({name: torch.zeros(3, 40)}), r"matrix of 32 x 40, the base's .* is \[32, 48\]")
    check(lambda t: t.update({name: torch.zeros(3)}), "is no factor")
    check(
        lambda t: t.update({name: torch.zeros(2, 48), name.replace("_A", "_B"): torch.zeros(32, 2)}),
        "has rank 2, adapter_config.json says 3",
    )
    check(lambda t: t.update({name.replace(DECODER, "model.decoder."): t[name]}), "are for one place")
    check(
        lambda t: t.update({n.replace(DECODER, "model."): t[n] for n in list(t) if DECODER + "layers" in n}),
        "one mode's",
    )
    check(lambda t: t.clear(), "holds no tensors")
    experts = f"{DECODER}layers.0.experts.lora_A.weight"
    check(lambda t: t.update({experts: torch.zeros(24, 40)}), "is for matrices of 48 x 40, the experts have 32 x 48")
    check(lambda t: t.update({experts: torch.zeros(23, 16)}), "does not divide into 8 experts")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("use_dora", True, "use_dora=True cannot be honoured: its norms"),
        ("bias", "all", "bias='all' cannot be honoured"),
        ("lora_bias", True, "lora_bias=True cannot be honoured"),
        ("modules_to_save", ["lm_head"], r"modules_to_save=\['lm_head'\] cannot be honoured"),
        ("layer_replication", [[0, 2]], "layer_replication="),
        ("trainable_token_indices", [1], "trainable_token_indices="),
        ("fan_in_fan_out", True, "fan_in_fan_out=True"),
        ("alora_invocation_tokens", [5], "alora_invocation_tokens="),
        (
            "init_lora_weights",
            "pissa_niter_4",
            "init_lora_weights='pissa_niter_4' cannot be honoured: it changes the base",
        ),
        ("init_lora_weights", "loftq", "init_lora_weights='loftq' cannot be honoured"),
        ("peft_type", "IA3", "peft_type is 'IA3', redraft reads 'LORA'"),
        ("use_qalora", True, "use_qalora=True is an option that redraft does not know"),
        ("something_new", 3, "something_new=3 is an option that redraft does not know"),
        ("r", 0, "rank must be an integer of at least 1, got 0"),
        ("lora_alpha", "x", "alpha must be a number"),
    ],
)
def test_what_a_config_asks_for_in_vain_is_refused_by_name(config, written, field, value, said):
    edit_json(written / CONFIG, lambda fields: fields.update({field: value}))
    with pytest.raises(CheckpointError, match=said):
        read_adapter(written, config)


def test_options_without_effect_are_passed_over(config, written):
    extra = {"init_lora_weights": "gaussian", "megatron_core": "megatron.core", "loftq_config": {}, "use_dora": False}
    edit_json(written / CONFIG, lambda fields: fields.update(extra))
    assert read_adapter(written, config).is_one


def test_files_that_are_no_adapter(config, written, tmp_path):
    with pytest.raises(ModelNotFoundError, match="nowhere is no directory with an adapter"):
        read_adapter(tmp_path / "nowhere", config)
    weights = (written / WEIGHTS).read_bytes()
    (written / WEIGHTS).write_bytes(weights[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_adapter(written, config)
    (written / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        read_adapter(written, config)
    (written / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a pickle"):
        read_adapter(written, config)
    (written / CONFIG).write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object"):
        read_adapter(written, config)


def logits_of(model):
    cache = model.new_cache()
    ids, canvas = (torch.randint(VOCAB, (1, n), generator=torch.Generator().manual_seed(n)) for n in (30, CANVAS))
    soft = torch.randn(1, CANVAS, model.config.hidden_size, generator=torch.Generator().manual_seed(3))
    return model.logits(model.encode(ids, cache)), model.denoise(canvas, cache), model.denoise(canvas, cache, soft)


def test_a_merged_checkpoint_is_the_base_with_its_adapter(checkpoint, config, written, tmp_path):
    (checkpoint / "tools.json").write_text("[]")
    (checkpoint / "chat_template.jinja").write_text("{{ messages }}")
    found = merge(written, checkpoint, tmp_path / "out")
    base, merged = redraft.load_model(checkpoint), redraft.load_model(tmp_path / "out")
    before = logits_of(base)
    attach(base, read_adapter(written, config))
    for expected, got, plain in zip(logits_of(base), logits_of(merged), before, strict=True):
        # Of logits of some 10, whose last bit is 1e-6.
        assert (expected - got).abs().max() <= 2e-5
        assert (plain - got).abs().max() > 0.05
    assert found.changed.keys() == made(config).denoise.keys()
    assert 0.001 < found.median_change < 1
    assert merged.config.raw["dtype"] == "float32"
    assert (tmp_path / "out" / "chat_template.jinja").exists()
    assert not (tmp_path / "out" / "tools.json").exists()
    # What is not run is there as well.
    assert (
        Source.open(tmp_path / "out").passed_through().keys()
        == Source.open(checkpoint).passed_through().keys()
        != set()
    )


def test_a_bfloat16_base_is_added_to_in_float32_and_rounded_once(written, config, tmp_path):
    base = write_checkpoint(tmp_path / "base", gain=0.05, num_hidden_layers=2, layer_types=LAYERS, dtype=torch.bfloat16)
    merge(written, base, tmp_path / "out")
    stored, merged = Source.open(base).tensors, Source.open(tmp_path / "out").tensors
    assert {tensor.form for tensor in merged.values()} == {"bfloat16"}
    for name, pair in made(config).denoise.items():
        full = f"model.decoder.{name}"
        expected = (stored[full].read().float() + pair.factors.delta().detach()).bfloat16()
        assert torch.equal(merged[full].read(), expected), name


def test_quantised_weights_are_not_merged_into(checkpoint, written, tmp_path):
    quantize(checkpoint, tmp_path / "small", RECIPES["int8"])
    with pytest.raises(
        CheckpointError, match="stored in int8, int8: a small change added to a rounded weight"
    ) as caught:
        merge(written, tmp_path / "small", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_base_is_not_merged_into(checkpoint, config, tmp_path):
    adapter = made(config)
    adapter.base = fingerprint(redraft.load_model(checkpoint))
    assert fingerprint_of(Source.open(checkpoint)) == adapter.base
    write_adapter(adapter, config, tmp_path / "adapter")
    merge(tmp_path / "adapter", checkpoint, tmp_path / "right")
    other = write_checkpoint(tmp_path / "other", seed=1, num_hidden_layers=2, layer_types=LAYERS)
    with pytest.raises(CheckpointError, match="made for another base"):
        merge(tmp_path / "adapter", other, tmp_path / "out")


def test_the_command_merges_and_says_how_much_has_changed(checkpoint, written, tmp_path, capsys):
    words = ["merge", str(written), "--base", str(checkpoint), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert re.search(r"out: \d\.\d MB in 4 files, sha256 [0-9a-f]{64}\n\d+ tensors changed, in the median by", said)
    assert main([*words, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["files"] == {"written": 0, "kept": 4}
    assert again["sha256"] in said


@pytest.mark.parametrize("wrong", ["adapter", "base"])
def test_the_command_says_in_one_line_what_is_wrong(checkpoint, written, tmp_path, capsys, wrong):
    adapter, base = (tmp_path / "none", checkpoint) if wrong == "adapter" else (written, tmp_path / "none")
    assert main(["merge", str(adapter), "--base", str(base), "--out", str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("redraft: ")
    assert "none" in line
