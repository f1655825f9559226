"""What a config.json names is in the files beside it: for every writer of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

import redraft
from checkpoints import edit_json, write_checkpoint
from quantised_gguf import write_gguf
from redraft.bench.shapes import shape_config, shape_directory
from redraft.checkpoint.convert import export, quantize
from redraft.checkpoint.formats.gguf import open_gguf
from redraft.checkpoint.formats.headers import TensorFiles
from redraft.checkpoint.formats.sidecar import sidecar
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.rounding import RECIPES
from redraft.checkpoint.save import save_checkpoint


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def with_tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tower"))


@pytest.fixture(scope="module")
def mini_as_it_was(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names a tower that is not there."""
    directory = tmp_path_factory.mktemp("mini")
    for path in (BUNDLED / "mini").iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    edit_json(directory / "config.json", lambda config: config.update(vision_config={"num_hidden_layers": 27}))
    return directory


def saved(source: Path, directory: Path) -> None:
    save_checkpoint(redraft.load_model(source), directory)


def quantised(source: Path, directory: Path) -> None:
    quantize(source, directory, RECIPES["int8"])


def exported(source: Path, directory: Path) -> None:
    export(source, directory)


def exported_from_gguf(source: Path, directory: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    config["text_config"] |= {"rms_norm_eps": 1e-6}
    path = directory.with_suffix(".gguf")
    write_gguf(path, load_file(source / "model.safetensors"), config, "gguf-bf16")
    export(path, directory)
    assert json.loads((sidecar(path) / "config.json").read_text())["vision_config"] is None
    assert open_gguf(path).config()["vision_config"] is None


def towers(directory: Path) -> tuple[bool, bool]:
    """Whether a vision tower is named, and whether it is there."""
    config = json.loads((directory / "config.json").read_text())
    held = any(".vision_tower." in name for name in TensorFiles.of(directory).file_of)
    return config["vision_config"] is not None, held


@pytest.mark.parametrize("write", [saved, quantised, exported])
def test_a_tower_is_named_where_it_is(write: Callable[[Path, Path], None], with_tower: Path, tmp_path: Path) -> None:
    write(with_tower, tmp_path / "out")
    assert towers(tmp_path / "out") == (True, True)


@pytest.mark.parametrize("write", [saved, quantised, exported])
def test_no_tower_is_named_where_none_is(
    write: Callable[[Path, Path], None], mini_as_it_was: Path, tmp_path: Path
) -> None:
    write(mini_as_it_was, tmp_path / "out")
    assert towers(tmp_path / "out") == (False, False)


def test_a_gguf_file_has_none(with_tower: Path, tmp_path: Path) -> None:
    exported_from_gguf(with_tower, tmp_path / "out")
    assert towers(tmp_path / "out") == (False, False)


def test_made_models_have_none(tmp_path: Path) -> None:
    assert shape_config("tiny").raw["vision_config"] is None
    for form in (None, "int4"):
        assert towers(shape_directory("tiny", form)) == (False, False)


def test_mini_has_none() -> None:
    assert towers(BUNDLED / "mini") == (False, False)
