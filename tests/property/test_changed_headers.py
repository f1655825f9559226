"""A header that was changed anywhere is refused, or its tensors are those that the safetensors library reads."""

from __future__ import annotations

import copy
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from redraft.checkpoint.formats.headers import DTYPES, TensorFiles, entries
from redraft.core.errors import CheckpointError

TENSORS = {
    "a": torch.arange(12.0).view(3, 4),
    "b": torch.arange(12.0, 24.0).view(3, 4),
    "c": torch.arange(24).to(torch.int8).view(2, 12),
    "d": torch.arange(6).to(torch.bfloat16),
    "e": torch.zeros(0, 2),
}
NUMBERS = st.one_of(st.integers(-70, 200), st.sampled_from([2**31, 2**63, -(2**63), 10**30, 1.5, True]))
JUNK = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4), st.lists(NUMBERS, max_size=3), st.just({}))
DTYPE = st.sampled_from([*DTYPES, "F4", "U16", "F33", "f32", ""])


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, str, Any]:
    """(tensor, field, what stands there now); lists of offsets and sizes keep their form more often than not."""
    field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "data_offsets", "more", "gone", "name"]))
    value = {
        "dtype": st.one_of(DTYPE, JUNK),
        "shape": st.one_of(st.lists(NUMBERS, max_size=3), st.permutations([3, 4]), JUNK),
        "data_offsets": st.one_of(st.lists(NUMBERS, min_size=2, max_size=2), st.just("of another"), JUNK),
        "name": st.one_of(st.sampled_from(sorted(TENSORS)), st.text(max_size=3), st.just("n" * 600)),
    }.get(field, JUNK)
    return draw(st.sampled_from(sorted(TENSORS))), field, draw(value)


def changed(header: dict[str, Any], tensor: str, field: str, value: Any) -> None:
    entry = header.get(tensor)
    if entry is None:
        return
    if field == "gone":
        del header[tensor]
    elif field == "name":
        header[value] = header.pop(tensor)
    elif value == "of another":
        other = next(name for name in header if name not in (tensor, "__metadata__"))
        entry["data_offsets"] = header[other]["data_offsets"]
    else:
        entry[field] = value


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], bytes]:
    directory = tmp_path_factory.mktemp("headers")
    save_file(TENSORS, directory / "model.safetensors")
    raw = (directory / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return directory, json.loads(raw[8 : 8 + length]), raw[8 + length :]


def check(directory: Path) -> None:
    for mapped in (True, False):
        try:
            found = entries(TensorFiles.of(directory), mapped=mapped)
        except CheckpointError:
            return
        with safe_open(directory / "model.safetensors", "pt") as file:
            assert set(found) == set(file.keys())
            for name, entry in found.items():
                if entry.dtype not in DTYPES:
                    continue
                theirs = file.get_tensor(name)
                for ours in (entry.read(None), entry.copied()):
                    assert ours.dtype == theirs.dtype
                    assert ours.shape == theirs.shape
                    assert torch.equal(ours.contiguous().view(-1).view(torch.uint8), theirs.view(-1).view(torch.uint8))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(changes(), min_size=1, max_size=2), moved=st.sampled_from([0, 0, 0, -1, 1, 64]))
def test_a_changed_header(sound: tuple[Path, dict[str, Any], bytes], changes: list[Any], moved: int) -> None:
    directory, header, data = sound
    header = copy.deepcopy(header)
    for change in changes:
        changed(header, *change)
    text = json.dumps(header).encode()
    data = data[:moved] if moved < 0 else data + bytes(moved)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    check(directory)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes(sound: tuple[Path, dict[str, Any], bytes], data: st.DataObject) -> None:
    directory, header, body = sound
    text = json.dumps(header).encode()
    raw = bytearray(struct.pack("<Q", len(text)) + text)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (directory / "model.safetensors").write_bytes(bytes(raw) + body)
    check(directory)
