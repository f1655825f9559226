"""Adapters against peft on transformers: what is written here runs there, what peft makes runs here, merged or not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Story, load_reference, prefilled, random_ids

import redraft
from checkpoints import CANVAS, VOCAB, quiet, write_checkpoint
from redraft.adapters.adapter import Adapter
from redraft.adapters.attach import attach
from redraft.adapters.files import write_adapter
from redraft.adapters.merge import merge
from redraft.adapters.read import read_adapter
from redraft.adapters.settings import GROUPS, Settings

# With small contributions of each layer: the others' own arithmetic differs by ten times as much else.
SHAPE = {"gain": 0.05, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
TOLERANCE = 1e-5
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
IDS, CANVAS_IDS = random_ids(1, 24, seed=1), random_ids(1, CANVAS, seed=2)
SIGNAL = 3 * torch.randn(1, CANVAS, VOCAB, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"), num_hidden_layers=3, **SHAPE)


@pytest.fixture
def model(base: Path) -> Any:
    return redraft.load_model(base)


def adapter_for(model: Any, targets: list[str], **settings: Any) -> Adapter:
    made = Adapter.fresh(Settings(targets=targets, **{"rank": 4, "alpha": 8.0} | settings), model.config, seed=1)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in made.named_parameters():
        if name.endswith(".b"):
            parameter.data.normal_(generator=generator).mul_(0.1)
    return made


def ours(model: Any) -> list[torch.Tensor]:
    """Logits of the causal mode, and of a canvas without and with signal."""
    cache = prefilled(model, IDS)
    causal = model.logits(model.encode(IDS, model.new_cache()))
    return [causal, model.denoise(CANVAS_IDS, cache), model.denoise(CANVAS_IDS, cache, model.soft_embedding(SIGNAL))]


def theirs(reference: Any) -> list[torch.Tensor]:
    story = Story(reference)
    return [story.encode(IDS), story.denoise(CANVAS_IDS), story.denoise(CANVAS_IDS, SIGNAL)]


def gap(left: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))


def loaded(base: Path, directory: Path, *, merging: bool) -> Any:
    """transformers' model with an adapter, by the two lines that we tell people."""
    reference = load_reference(base)
    with quiet(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        from peft import PeftConfig, PeftModel

        if merging:
            config = PeftConfig.from_pretrained(directory / "merge_config")
            found = PeftModel.from_pretrained(reference, directory, config=config).merge_and_unload()
        else:
            found = PeftModel.from_pretrained(reference, directory).base_model.model
    # Missing tensors, patterns that match nothing: peft only warns.
    assert not [str(one.message) for one in said if "adapter" in str(one.message) or "pattern" in str(one.message)]
    return found


SETTINGS = [
    (list(GROUPS), {}),
    (["attention", "dense"], {"rslora": True}),
    (["experts"], {"shared_experts": True}),
    (["experts.down_proj", "router"], {}),
    (["experts.gate_up_proj"], {}),
    (
        [*GROUPS],
        {"rank_pattern": {"experts": 2, r"layers\.1\.mlp\.up_proj": 3}, "alpha_pattern": {"k_proj": 2, "experts": 3}},
    ),
    (["layers.0.self_attn.q_proj", "layers.2.experts.down_proj", "layers.1.mlp.up_proj"], {}),
]


@pytest.mark.parametrize(("targets", "settings"), SETTINGS, ids=range(len(SETTINGS)))
def test_peft_runs_what_is_written_here(base, model, tmp_path, targets, settings):
    plain = ours(model)
    attached = attach(model, adapter_for(model, targets, **settings))
    expected = ours(model)
    write_adapter(attached.adapter, model.config, tmp_path, base=str(base))
    assert gap(expected, plain) > 0.02
    assert gap(theirs(loaded(base, tmp_path, merging=False)), expected) <= TOLERANCE
    assert gap(theirs(loaded(base, tmp_path, merging=True)), expected) <= TOLERANCE


PEFT = [
    {"target_modules": r".*\.(decoder|language_model)\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"},
    {"target_modules": ["router.proj"], "target_parameters": EXPERTS},
    {"target_parameters": EXPERTS[:1], "target_modules": []},
    {"target_parameters": EXPERTS[1:], "target_modules": []},
    {
        "target_modules": r".*\.decoder\..*(q_proj|o_proj|self_conditioning\.up_proj)|.*language_model.*q_proj",
        "target_parameters": EXPERTS,
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 1},
    },
]


@pytest.mark.parametrize("options", PEFT, ids=range(len(PEFT)))
def test_what_peft_makes_runs_here(base, model, tmp_path, options):
    """peft starts the encoder's factors and the decoder's apart: that is two adapters, one a mode."""
    torch.manual_seed(3)
    with quiet():
        from peft import LoraConfig, get_peft_model

        tuned = get_peft_model(load_reference(base), LoraConfig(r=3, lora_alpha=5, init_lora_weights=False, **options))
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.data *= 0.3
        expected = theirs(tuned.base_model.model)
        tuned.save_pretrained(tmp_path)
    plain = ours(model)
    adapter = read_adapter(tmp_path, model.config)
    assert not adapter.is_one
    attach(model, adapter)
    assert gap(expected, plain) > 0.02
    assert gap(ours(model), expected) <= TOLERANCE


@pytest.mark.filterwarnings("ignore:.*decoder's names alone")
def test_a_decoder_that_peft_trained_alone_runs_as_under_peft(base, model, tmp_path):
    torch.manual_seed(3)
    with quiet():
        from peft import LoraConfig, get_peft_model

        options = {"target_modules": r".*\.decoder\..*\.q_proj", "init_lora_weights": False}
        tuned = get_peft_model(load_reference(base), LoraConfig(r=3, lora_alpha=5, **options))
        expected = theirs(tuned.base_model.model)
        tuned.save_pretrained(tmp_path)
    attach(model, read_adapter(tmp_path, model.config))
    assert gap(ours(model), expected) <= TOLERANCE


def test_transformers_loads_a_merged_checkpoint(base, model, tmp_path):
    attached = attach(model, adapter_for(model, list(GROUPS)))
    write_adapter(attached.adapter, model.config, tmp_path / "adapter")
    merge(tmp_path / "adapter", base, tmp_path / "merged")
    assert gap(theirs(load_reference(tmp_path / "merged")), ours(model)) <= TOLERANCE
