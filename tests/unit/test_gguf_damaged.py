"""GGUF files that say what cannot be are refused by name, whichever byte of a header was changed."""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from quantised import write_source
from quantised_gguf import write_gguf
from redraft.checkpoint.formats.gguf import open_gguf
from redraft.checkpoint.formats.gguf_file import read_gguf
from redraft.checkpoint.formats.gguf_tokenizer import write_tokenizer
from redraft.checkpoint.source import Source
from redraft.core.errors import CheckpointError
from redraft.model.model import shapes_of


def small(path: Path, write: Callable[[GGUFWriter], Any]) -> Path:
    writer = GGUFWriter(path, "diffusion-gemma")
    write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def raw(keys: list[bytes], tensors: list[bytes], data: bytes = b"", counts: tuple[int, int] | None = None) -> bytes:
    number, many = counts or (len(tensors), len(keys))
    head = b"GGUF" + (3).to_bytes(4, "little") + number.to_bytes(8, "little") + many.to_bytes(8, "little")
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def text(value: str) -> bytes:
    return len(value).to_bytes(8, "little") + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + kind.to_bytes(4, "little") + value


def tensor(name: str, shape: tuple[int, ...], offset: int, kind: int = 0) -> bytes:
    sizes = b"".join(size.to_bytes(8, "little") for size in shape)
    rank = len(shape).to_bytes(4, "little")
    return text(name) + rank + sizes + kind.to_bytes(4, "little") + offset.to_bytes(8, "little")


U32, I32, STRING, ARRAY = 4, 5, 8, 9
ALIGNMENT = "general.alignment"


def nested(depth: int) -> bytes:
    """An array of arrays, to a depth, with one number inside."""
    inner = U32.to_bytes(4, "little") + (1).to_bytes(8, "little") + bytes(4)
    for _ in range(depth):
        inner = ARRAY.to_bytes(4, "little") + (1).to_bytes(8, "little") + inner
    return inner


BROKEN = {
    "alignment 0": (raw([key(ALIGNMENT, U32, bytes(4))], []), "alignment is 0"),
    "alignment below 0": (raw([key(ALIGNMENT, I32, (-32).to_bytes(4, "little", signed=True))], []), "alignment is -32"),
    "alignment 48": (raw([key(ALIGNMENT, U32, (48).to_bytes(4, "little"))], []), "alignment is 48"),
    "alignment text": (raw([key(ALIGNMENT, STRING, text("wide"))], []), "alignment is 'wide'"),
    "key twice": (raw([key("a", U32, bytes(4))] * 2, []), "'a' is said twice"),
    "tensor twice": (raw([], [tensor("a", (2,), 0), tensor("a", (2,), 32)], bytes(64)), "'a' is said twice"),
    "rank 0": (raw([], [tensor("a", (), 0)], bytes(32)), "'a' has 0 dimensions"),
    "rank 5": (raw([], [tensor("a", (1,) * 5, 0)], bytes(32)), "'a' has 5 dimensions"),
    "empty": (raw([], [tensor("a", (2**63, 0), 0)], bytes(32)), "'a' is empty"),
    "overlap": (raw([], [tensor("a", (16,), 0), tensor("b", (2,), 32)], bytes(64)), "'a' and 'b' overlap"),
    "beyond": (raw([], [tensor("a", (2,), 2**62)], bytes(32)), "cut short in tensor 'a'"),
    "huge": (raw([], [tensor("a", (2**62, 2**62), 0)], bytes(32)), "cut short in tensor 'a'"),
    "nested": (raw([key("a", ARRAY, nested(5000))], []), "nested too deeply"),
    "many tensors": (raw([], [], b"", (2**63, 0)), "cut short|twice|dimensions"),
    "many keys": (raw([], [], b"", (0, 2**63)), "cut short|twice"),
    "long array": (raw([key("a", ARRAY, U32.to_bytes(4, "little") + b"\xff" * 8)], []), "cut short"),
    "long text": (raw([key("a", STRING, b"\xff" * 8)], []), "cut short"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_container_that_says_what_cannot_be(tmp_path: Path, kind: str) -> None:
    content, reason = BROKEN[kind]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as raised:
        read_gguf(path)
    assert str(path) in str(raised.value)


def test_one_part_of_several_says_what_to_do(tmp_path: Path) -> None:
    def split(writer: GGUFWriter) -> None:
        writer.add_uint16("split.no", 1)
        writer.add_uint16("split.count", 3)

    path = small(tmp_path / "model-00002-of-00003.gguf", split)
    with pytest.raises(CheckpointError, match=re.escape("is part 2 of 3 of a split file: join them with `llama-gguf")):
        open_gguf(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sound")
    source = write_source(directory / "source")
    config = json.loads((source / "config.json").read_text())
    write_gguf(directory / "model.gguf", load_file(source / "model.safetensors"), config, "gguf-q8_0")
    return directory / "model.gguf"


@pytest.mark.parametrize("name", ["model.gguf", "MODEL.GGUF", "Model.Gguf"])
def test_the_suffix_may_be_spelled_in_capitals(sound: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(sound)
    assert Source.open(tmp_path / name).config == Source.open(sound).config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block_count", 10**9), ("block_count", "three"), ("block_count", [3]), ("attention.head_count_kv", [[1]] * 3),
        ("attention.head_count_kv", "two"), ("embedding_length", "wide"), ("attention.key_length", [64, 64]),
        ("rope.freq_base", "fast"), ("attention.layer_norm_rms_epsilon", float("nan")),
        ("attention.sliding_window_pattern", "yes"), ("attention.sliding_window_pattern", [True, True, 7]),
    ],
)  # fmt: skip
def test_keys_of_another_type_are_named(sound: Path, name: str, value: Any) -> None:
    file = open_gguf(sound)
    file.metadata[f"diffusion-gemma.{name}"] = value
    with pytest.raises(CheckpointError, match=re.escape(str(sound))):
        file.config()


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 3}, {"tokens": [1, 2]}, {"merges": "h e"}, {"merges": [1]}, {"token_type": [3]},
        {"token_type": ["3"]}, {"eos_token_id": "end"}, {"eos_token_id": 10**9}, {"padding_token_id": -1},
    ],
)  # fmt: skip
def test_tokenizers_that_cannot_be_are_named(sound: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    file = open_gguf(sound)
    file.metadata.update({f"tokenizer.ggml.{name}": value for name, value in change.items()})

    def both() -> None:
        file.config()
        write_tokenizer(file.metadata, tmp_path, str(sound))

    with pytest.raises(CheckpointError, match=r"\.gguf"):
        both()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_a_named_error_or_none(sound: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(sound.read_bytes())
    header = content.index(b"token_embd.weight") + 2000
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"model-{len(list(tmp_path.iterdir()))}.gguf"
    path.write_bytes(content)
    # No assertion: what must not come is any other error.
    with contextlib.suppress(CheckpointError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = Source.open(path)
        source.parameters(shapes_of(source.config))
        file = open_gguf(path)
        file.generation_config()
        file.write_tokenizer(tmp_path / "tokenizer")
