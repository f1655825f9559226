"""What a run has logged: `metrics.jsonl`, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redraft.core.files import replace_text
from redraft.core.strict_json import strict_json


def append_row(path: Path, kind: str, step: int, figures: Mapping[str, float]) -> None:
    """Logs the figures of a step, to six digits; those that are not finite become null."""
    row = {"kind": kind, "step": step} | {name: float(f"{value:.6g}") for name, value in figures.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(strict_json(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows in their order, without what is none: a run that dies may leave half a line."""
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("kind"), str) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def forget_beyond(path: Path, reached: Mapping[str, int]) -> None:
    """Takes out what a run that goes on will log again.

    Args:
        path: of the file; there need be none.
        reached: by kind of row, the last step to keep.
    """
    if not path.exists():
        return
    kept = [row for row in read_rows(path) if row["step"] <= reached.get(row["kind"], 0)]
    replace_text(path, "".join(strict_json(row) + "\n" for row in kept))
