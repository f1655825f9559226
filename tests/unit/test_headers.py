"""Headers, indexes and JSON files that say what cannot be are refused by name, before a tensor is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from redraft.checkpoint.formats.headers import TensorFiles, entries, read_header
from redraft.checkpoint.layout import CHECKSUMS, verify
from redraft.core.errors import CheckpointError
from redraft.core.files import read_json

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(6.0, 12.0).view(2, 3), "c": torch.ones(4)}


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def put(path: Path, header: dict[str, Any] | bytes, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def shifted(header: dict[str, Any], by: int) -> None:
    for name, entry in header.items():
        if name != "__metadata__":
            entry["data_offsets"] = [place + by for place in entry["data_offsets"]]


EDITS = {
    "negative": lambda h: h["a"].update(data_offsets=[-64, h["a"]["data_offsets"][1]]),
    "reversed": lambda h: h["a"].update(data_offsets=h["a"]["data_offsets"][::-1]),
    "overlap": lambda h: h["a"].update(data_offsets=h["b"]["data_offsets"]),
    "short": lambda h: h["a"].update(data_offsets=[h["a"]["data_offsets"][0], h["a"]["data_offsets"][0] + 2]),
    "beyond": lambda h: h["b"].update(data_offsets=[10**6, 10**6 + 24]),
    "hole": lambda h: h.pop("b"),
    "shape": lambda h: h["a"].update(shape=[3, 3]),
    "huge": lambda h: h["a"].update(shape=[2**62, 2**62]),
    "fraction": lambda h: h["a"].update(shape=[2.0, 3.0]),
    "boolean": lambda h: h["a"].update(shape=[True, 6]),
    "size below zero": lambda h: h["a"].update(shape=[-2, -3]),
    "fractional offsets": lambda h: h["a"].update(data_offsets=[float(n) for n in h["a"]["data_offsets"]]),
    "no dtype": lambda h: h["a"].pop("dtype"),
    "list dtype": lambda h: h["a"].update(dtype=["F32"]),
    "unknown dtype": lambda h: h["a"].update(dtype="F33"),
    "half a byte": lambda h: h["a"].update(dtype="F4", shape=[47]),
    "more said": lambda h: h["a"].update(more=1),
    "no entry": lambda h: h.update(d=None),
    "entry is a list": lambda h: h.update(d=[1]),
    "long name": lambda h: h.update({"d" * 513: h.pop("a")}),
    "metadata": lambda h: h.update(__metadata__={"format": 1}),
    "metadata is a list": lambda h: h.update(__metadata__=[]),
}


@pytest.mark.parametrize("kind", EDITS)
def test_a_header_that_says_what_cannot_be_is_refused(path: Path, kind: str) -> None:
    header, data = parts(path)
    EDITS[kind](header)
    put(path, header, data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read \("):
        TensorFiles.of(path.parent)


@pytest.mark.parametrize("before", [0, 3])
def test_data_begins_where_the_header_ends(path: Path, before: int) -> None:
    header, data = parts(path)
    shifted(header, before)
    put(path, header, bytes(before) + data + b"\0" * (before == 0))
    with pytest.raises(CheckpointError, match="begins at 3|follow it"):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        (b'{"a":{"dtype":"F32"},"a":{}}', "'a' is said twice"),
        (b'{"a":{"dtype":"F32","dtype":"F16","shape":[],"data_offsets":[0,4]}}', "'dtype' is said twice"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', "thousands of digits"),
        (b"[]", "must hold a JSON object"),
        (b'{"\\ud800":{"dtype":"F32","shape":[],"data_offsets":[0,0]}}', "no name of a tensor"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_a_header_that_is_no_object_is_refused(path: Path, header: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_header(put(path, header, b""))


def test_lengths_that_cannot_be_are_refused_before_anything_is_read(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(CheckpointError, match="longer than the file"):
        read_header(path)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 10**8 + 1) + b"{}")
        file.truncate(2 * 10**8)
    with pytest.raises(CheckpointError, match="longer than 100000000"):
        read_header(path)
    for content in (b"", b"\0" * 7):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_header(path)


def test_a_pointer_to_weights_is_named_as_what_it_is(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n")
    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        read_header(path)


def test_empty_tensors_and_numbers_of_any_width_are_no_fault(tmp_path: Path) -> None:
    tensors = TENSORS | {"none": torch.zeros(0, 5), "scalar": torch.tensor(3.0), "byte": torch.tensor([1]).byte()}
    save_file(tensors, tmp_path / "model.safetensors")
    found = entries(TensorFiles.of(tmp_path))
    assert all(torch.equal(found[name].copied(), tensor) for name, tensor in tensors.items())


def index(path: Path, weight_map: Any) -> Path:
    path.rename(path.with_name("part.safetensors"))
    target = path.with_name("model.safetensors.index.json")
    target.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path.parent


OUTSIDE = ("../other/part.safetensors", "sub/../../part.safetensors", "/etc/passwd", "..", "C:\\part", "a\0b", "a\\b")


@pytest.mark.parametrize("name", [*OUTSIDE, "\ud800", "", None, 3, ["part.safetensors"]])
def test_an_index_stays_in_its_directory(path: Path, name: Any) -> None:
    outside = path.parent.parent / "other"
    outside.mkdir(exist_ok=True)
    save_file(TENSORS, outside / "part.safetensors")
    directory = index(path, dict.fromkeys(TENSORS, "part.safetensors") | {"b": name})
    with pytest.raises(CheckpointError, match="not in its directory|names no file|surrogate"):
        TensorFiles.of(directory)


def test_an_absolute_path_is_refused_wherever_it_leads(path: Path) -> None:
    inside = str(path.with_name("part.safetensors").resolve())
    with pytest.raises(CheckpointError, match="not in its directory"):
        TensorFiles.of(index(path, dict.fromkeys(TENSORS, inside)))


def test_links_of_a_hub_cache_are_followed(path: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "main", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    directory = index(path, dict.fromkeys(TENSORS, "part.safetensors"))
    for number, name in enumerate(("part.safetensors", "model.safetensors.index.json")):
        (directory / name).rename(blobs / f"{number}")
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    found = entries(TensorFiles.of(snapshot))
    assert torch.equal(found["b"].copied(), TENSORS["b"])


def test_of_two_files_with_one_tensor_the_index_decides(path: Path) -> None:
    directory = index(path, dict.fromkeys(("a", "c"), "part.safetensors") | {"b": "more.safetensors"})
    save_file({"b": torch.zeros(2, 3), "d": torch.ones(1)}, directory / "more.safetensors")
    found = entries(TensorFiles.of(directory))
    assert torch.equal(found["b"].copied(), torch.zeros(2, 3))
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "part.safetensors", "d": "more.safetensors"}})
    )
    with pytest.raises(CheckpointError, match="'b' is in more.safetensors and in part.safetensors"):
        TensorFiles.of(directory)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a":' * 100 + b"1" + b"}" * 100, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'{"a":1,"a":2}', "'a' is said twice"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":["\\ud800"]}', "half a surrogate"),
        (b'{"\\udfff":1}', "half a surrogate"),
        (b'{"a":\xff}', "not valid JSON"),
        (b"[]", "must hold a JSON object"),
        (b"", "not valid JSON"),
    ],
)
def test_json_that_cannot_be_used_is_one_kind_of_error(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as raised:
        read_json(path)
    assert str(path) in str(raised.value)


def test_json_where_no_file_is(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "config.json", tmp_path / "file" / "config.json"):
        (tmp_path / "file").touch()
        with pytest.raises(CheckpointError, match="cannot be read|does not exist"):
            read_json(path)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(10**8 + 1)
    with pytest.raises(CheckpointError, match="at most"):
        read_json(tmp_path / "large.json")


def test_pairs_of_surrogates_are_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": "\\ud83d\\ude00"}')
    assert read_json(tmp_path / "config.json") == {"a": "\N{GRINNING FACE}"}


def test_checksums_that_are_none_are_named(path: Path) -> None:
    header, data = parts(path)
    header["__metadata__"][CHECKSUMS] = "[" * 5000
    put(path, header, data)
    with pytest.raises(CheckpointError, match=CHECKSUMS):
        verify([path])


@pytest.mark.parametrize("mapped", [True, False])
def test_sound_files_are_read_as_ever(path: Path, mapped: bool) -> None:
    found = entries(TensorFiles.of(path.parent), mapped=mapped)
    assert all(torch.equal(found[name].read(None), tensor) for name, tensor in TENSORS.items())
