"""A name that leads to no model says what is there instead, and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import redraft
from redraft.checkpoint.locate import BUNDLED, locate
from redraft.checkpoint.source import Source
from redraft.core.errors import CheckpointError, ModelNotFoundError

MINI = BUNDLED / "mini"


@pytest.fixture(autouse=True)
def _nothing_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["./missing", "../missing", "/missing", "~/missing", "~nosuchuser/missing", "a/b/c", "models/missing.gguf", "./",
     "missing.GGUF", "a\\b", "x" * 5000, "a\0b/c"],
)  # fmt: skip
def test_a_path_is_no_hub_id(name: str, tmp_path: Path) -> None:
    if name == "./":
        name = "./missing/"
    with pytest.raises(ModelNotFoundError) as raised:
        locate(name)
    assert "hf download" not in str(raised.value)
    assert "no model" in str(raised.value)


def test_a_path_object_is_no_hub_id() -> None:
    with pytest.raises(ModelNotFoundError, match="no such directory or file"):
        locate(Path("models/missing"))


def test_a_name_that_may_be_both_says_so(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelNotFoundError, match="no directory 'models/missing' in models, which exists, and no such"):
        locate("models/missing")
    with pytest.raises(ModelNotFoundError, match="no directory 'google/missing', and .* `hf download google/missing`"):
        locate("google/missing")


@pytest.mark.parametrize("name", ["a/b--c", "a/-b", "a/b.", "a/" + "b" * 100])
def test_what_the_hub_refuses_is_our_error(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="is no Hub id"):
        locate(name)


@pytest.mark.parametrize("name", ["", "nothing", "mini/", "..."])
def test_other_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        locate(name)


FILES = {
    "model.uqff": "UQFF file of mistral.rs",
    "model.safetensors": "one file of a checkpoint: give its directory",
    "adapter_model.safetensors": "LoRA adapter",
    "pytorch_model.bin": "pickled",
    "model.pth": "pickled",
    "model.onnx": "ONNX",
    "weights.npz": "NumPy",
    "model.mlx": "MLX",
    "notes.txt": "is a file, not a directory",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_model(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text")
    for open_it in (locate, Source.open):
        with pytest.raises(ModelNotFoundError, match=FILES[name]):
            open_it(str(tmp_path / name))


def test_a_gguf_file_by_another_name(tmp_path: Path) -> None:
    (tmp_path / "sha256-abc").write_bytes(b"GGUF....")
    with pytest.raises(ModelNotFoundError, match="a GGUF file by another name"):
        locate(tmp_path / "sha256-abc")


HOLDINGS = {
    ("adapter_config.json", "adapter_model.safetensors"): "LoRA adapter",
    ("config.json", "adapter_model.bin"): "LoRA adapter",
    ("config.json", "pytorch_model.bin"): "but pytorch_model.bin, pickled",
    ("config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"): "pickled",
    ("config.json", "model.pth"): "but model.pth, pickled",
    ("config.json", "consolidated.safetensors"): "consolidated.safetensors, weights under the names",
    ("config.json", "residual.safetensors", "q4k-0.uqff"): "UQFF",
    ("config.json", "model-Q4_K_M.gguf"): "give that file",
    ("config.json", "MODEL.SAFETENSORS"): "holds MODEL.SAFETENSORS, but no model.safetensors",
    ("config.json", "model-00001-of-00002.safetensors"): "no model.safetensors or model.safetensors.index.json",
    ("model.onnx",): "ONNX",
    ("weights.npz", "config.json"): "NumPy",
    ("config.json",): "holds no weights",
    (): "holds no weights",
}


@pytest.mark.parametrize("names", HOLDINGS, ids=lambda names: "+".join(names) or "nothing")
def test_a_directory_without_weights_says_what_it_holds(names: tuple[str, ...], tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    for name in names:
        (directory / name).write_text("{}")
    with pytest.raises(CheckpointError, match=HOLDINGS[names]) as raised:
        redraft.load(directory)
    assert str(directory) in str(raised.value)


def test_a_pointer_in_the_place_of_weights(tmp_path: Path) -> None:
    directory = shutil.copytree(MINI, tmp_path / "model")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"
    for name in ("model.safetensors", "model.gguf"):
        (directory / name).write_text(pointer)
        with pytest.raises(CheckpointError, match="Git LFS pointer"):
            Source.open(directory if name == "model.safetensors" else directory / name)


def test_a_hub_snapshot_is_read(tmp_path: Path) -> None:
    """As the cache lies: links from the snapshot to blobs."""
    root = tmp_path / "hub" / "models--some--model"
    snapshot = root / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    (root / "blobs").mkdir()
    for number, file in enumerate(sorted(MINI.iterdir())):
        shutil.copyfile(file, root / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    found = locate("some/model")
    assert found == snapshot
    assert Source.open(found).raw == json.loads((MINI / "config.json").read_text())
