"""Which files are made of which published ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from redraft.data import decider, mini, published
from redraft.text.conversations import read_conversations
from redraft.train.known import by_heart, write_by_heart


def _snips(raw: published.Raw, folder: Path) -> None:
    _write(folder / "train.jsonl", published.snips(raw))


def _clinc150(raw: published.Raw, folder: Path) -> None:
    _write(folder / "train.jsonl", published.clinc150(raw))


def _mini(raw: published.Raw, folder: Path) -> None:
    for name, rows in mini.split(published.snips(raw), published.clinc150(raw)).items():
        _write(folder / name, rows)
    trained_on = [row for name in ("snips", "clinc") for row in read_conversations(folder / f"{name}.train.jsonl")]
    write_by_heart(by_heart(trained_on), folder)


def _decider(raw: published.Raw, folder: Path) -> None:
    for name, rows in decider.split(published.snips(raw), published.clinc150(raw)).items():
        _write(folder / name, rows)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


# By the set's name: from raw files, by their paths, to files in a folder.
MAKERS: dict[str, Callable[[published.Raw, Path], None]] = {
    "snips": _snips, "clinc150": _clinc150, "mini": _mini, "decider": _decider
}  # fmt: skip
