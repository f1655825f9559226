"""A Gemma 4 checkpoint that is not run, or that lacks something, says which field or tensor is at fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import redraft
from checkpoints import edit_json, write_gemma4_checkpoint
from redraft.checkpoint.save import save_checkpoint
from redraft.core.errors import CheckpointError


@pytest.fixture(scope="module", params=["whole", "text"])
def gemma4(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma4_checkpoint(tmp_path_factory.mktemp(request.param), whole=request.param == "whole")


@pytest.fixture
def sound(gemma4: Path, tmp_path: Path) -> Path:
    """A sound checkpoint to be broken."""
    return shutil.copytree(gemma4, tmp_path / "model")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma4_checkpoint(tmp_path_factory.mktemp("released"), whole=True)


def edited(source: Path, directory: Path, **fields: Any) -> Path:
    """A copy whose text config has other fields; None leaves a field out."""

    def edit(config: dict[str, Any]) -> None:
        text = config.get("text_config", config)
        text.update(fields)
        for name in [name for name, value in fields.items() if value is None]:
            del text[name]

    shutil.copytree(source, directory)
    edit_json(directory / "config.json", edit)
    return directory


def test_towers_are_carried_over_and_the_tied_head_may_be_stored(whole: Path, tmp_path: Path) -> None:
    tensors = load_file(whole / "model.safetensors")
    towers = {name for name in tensors if "language_model" not in name}
    assert {name.split(".")[1] for name in towers} == {"vision_tower", "audio_tower", "embed_vision", "embed_audio"}
    copy = shutil.copytree(whole, tmp_path / "copy")
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    save_checkpoint(redraft.load_model(copy), tmp_path / "saved")
    assert set(load_file(tmp_path / "saved" / "model.safetensors")) == set(tensors) - {"lm_head.weight"}


@pytest.mark.parametrize("part", ["layers.3.self_attn.q_proj.weight", "layers.2.layer_scalar", "embed_tokens.weight"])
@pytest.mark.parametrize("fault", ["missing", "surplus", "shape"])
def test_every_tensor_is_accounted_for(sound: Path, part: str, fault: str) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(sound / "model.safetensors").items()}
    name = next(name for name in tensors if name.endswith(part) and "tower" not in name)
    if fault == "missing":
        del tensors[name]
    elif fault == "shape":
        tensors[name] = torch.zeros(3, 2)
    else:
        name = name + "_too"
        tensors[name] = torch.zeros(3)
    save_file(tensors, sound / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=fault) as raised:
        redraft.load_model(sound)
    assert repr(name) in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"enable_moe_block": False},
        {"enable_moe_block": None},
        {"hidden_size_per_layer_input": 16},
        {"hidden_size_per_layer_input": None},
        {"num_kv_shared_layers": 2},
        {"use_double_wide_mlp": True},
        {"use_bidirectional_attention": "all"},
        {"attention_bias": True},
        {"hidden_activation": "relu"},
        {"tie_word_embeddings": False},
        {"final_logit_softcapping": None},
        {"attention_k_eq_v": "yes"},
        {"num_experts": None},
        {"layer_types": ["full_attention"] + ["sliding_attention"] * 7},
        {"rope_parameters": {"full_attention": {"rope_type": "proportional", "factor": 8.0}}},
    ],
    ids=lambda fields: "-".join(f"{name}={str(value)[:12]}" for name, value in fields.items()),
)
def test_variants_that_are_not_run_are_refused_by_name(gemma4: Path, fields: dict[str, Any], tmp_path: Path) -> None:
    directory = edited(gemma4, tmp_path / "edited", **fields)
    with pytest.raises(CheckpointError, match=next(iter(fields))) as raised:
        redraft.load_model(directory)
    assert "\n" not in str(raised.value)


def _unified(config: dict[str, Any]) -> None:
    config["text_config"]["model_type"] = "gemma4_unified_text"


def _no_text(config: dict[str, Any]) -> None:
    del config["text_config"]


@pytest.mark.parametrize(("edit", "word"), [(_unified, "gemma4_unified_text"), (_no_text, "text_config")])
def test_another_text_model(whole: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], word: str) -> None:
    copy = shutil.copytree(whole, tmp_path / "copy")
    edit_json(copy / "config.json", edit)
    with pytest.raises(CheckpointError, match=word):
        redraft.load_model(copy)
