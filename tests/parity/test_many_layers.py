"""From ten layers on transformers fills the keys of `per_layer_config` up with zeros: every form is the same model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reference import Story, load_reference, prefilled, random_ids

import redraft
from checkpoints import CANVAS, edit_json, flatten_config, write_checkpoint
from redraft.checkpoint.save import save_checkpoint
from redraft.core.errors import CheckpointError
from redraft.model.config import ModelConfig


def pattern(count: int) -> list[str]:
    return ["full_attention" if (number + 1) % 6 == 0 else "sliding_attention" for number in range(count)]


@pytest.fixture(scope="module", params=[12, 30])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    count, directory = request.param, tmp_path_factory.mktemp("layers")
    # The more layers there are, the less each may add: what float32 itself is off grows with them.
    return write_checkpoint(directory, gain=2 / count, num_hidden_layers=count, layer_types=pattern(count))


def keys(directory: Path) -> list[str]:
    return list(json.loads((directory / "config.json").read_text())["text_config"]["per_layer_config"])


def as_written(source: Path, directory: Path) -> Path:
    assert keys(source)[0] == "05"
    return source


def without_zeros(source: Path, directory: Path) -> Path:
    def edit(config: dict[str, Any]) -> None:
        text = config["text_config"]
        text["per_layer_config"] = {str(int(key)): entry for key, entry in text["per_layer_config"].items()}

    shutil.copytree(source, directory)
    edit_json(directory / "config.json", edit)
    assert keys(directory)[0] == "5"
    return directory


def saved_by_us(source: Path, directory: Path) -> Path:
    save_checkpoint(redraft.load_model(source), directory)
    return directory


@pytest.mark.parametrize("form", [as_written, without_zeros, flatten_config, saved_by_us])
def test_every_form_is_the_references_model(many: Path, tmp_path: Path, form: Callable[[Path, Path], Path]) -> None:
    directory = form(many, tmp_path / "model")
    model, prompt, canvas = redraft.load_model(directory), random_ids(1, 40, seed=0), random_ids(1, CANVAS, seed=1)
    story = Story(load_reference(directory))
    story.encode(prompt)
    ours = model.denoise(canvas, prefilled(model, prompt))
    assert (ours - story.denoise(canvas)).abs().max() < 1e-3
    assert model.config.layers[5].head_dim == 16
    assert model.config.layers[6].head_dim == 8


def test_layers_may_differ_that_are_not_full(tmp_path: Path) -> None:
    """What a sliding layer has of its own is written again."""
    source = write_checkpoint(tmp_path / "source")

    def edit(config: dict[str, Any]) -> None:
        config["text_config"]["per_layer_config"]["1"] = {"num_key_value_heads": 1}

    edit_json(source / "config.json", edit)
    config = ModelConfig.from_directory(source)
    assert config.layers[1].num_key_value_heads == 1
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "key", ["five", "-1", "5.0", "12", "9" * 400, "", "\u0665", " 5", "5_0"], ids=lambda key: repr(key[:6])
)
def test_a_key_that_is_no_layer_is_named(tmp_path: Path, key: str) -> None:
    source = write_checkpoint(tmp_path / "source", num_hidden_layers=12, layer_types=pattern(12))
    edit_json(source / "config.json", lambda c: c["text_config"]["per_layer_config"].update({key: {"head_dim": 16}}))
    with pytest.raises(CheckpointError, match="per_layer_config has the key"):
        redraft.load_model(source)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"5": {"head_dim": 16}}, "names layer 5 twice"),
        ({"07": {"sliding_window": 4}}, "07.sliding_window is 4"),
        ({"07": {"skip": ["mlp"]}}, "07.skip is"),
    ],
)
def test_what_layers_cannot_say_is_named(tmp_path: Path, entry: dict[str, Any], reason: str) -> None:
    source = write_checkpoint(tmp_path / "source", num_hidden_layers=12, layer_types=pattern(12))
    edit_json(source / "config.json", lambda config: config["text_config"]["per_layer_config"].update(entry))
    with pytest.raises(CheckpointError, match=reason):
        redraft.load_model(source)
