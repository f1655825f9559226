"""`redraft presets`: named sets of options, and what they measure on a model."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from redraft.cli.options import Json, Model
from redraft.core.presets import MEANINGS, PRESETS

_MODES = ("autoregressive, greedy", "verified, greedy")
_COLUMNS = {
    "exact match": ("exact_match", "{:.1%}"),
    "valid calls": ("valid_calls", "{:.1%}"),
    "steps/canvas": ("denoising_steps_per_canvas", "{:.1f}"),
    "s/request": ("seconds_per_request", "{:.3f}"),
}


def presets(model: Model = "mini", as_json: Json = False) -> None:
    """List the presets, and what they measure on a model."""
    from redraft.checkpoint.locate import locate
    from redraft.cli import show
    from redraft.core.files import read_json

    path = locate(model) / "presets.json"
    document = read_json(path) if path.exists() else {}
    found = document.get("presets")
    measured = found if isinstance(found, dict) else {}
    if as_json:
        named = {
            name: {"meaning": MEANINGS[name], "options": options, "measured": measured.get(name)}
            for name, options in PRESETS.items()
        }
        show.print_json(named)
        return
    for name, options in PRESETS.items():
        print(f"{name}: {MEANINGS[name]}")
        words = ", ".join(f"{key}={value}" for key, value in options.items())
        if words:
            print(textwrap.fill(words, 80, initial_indent="    ", subsequent_indent="    "))
    if not measured:
        print(
            show.printable(f"\n{model}: not measured yet; benchmarks/presets.py does it, on held-out rows of your task")
        )
        return
    task, command = document.get("task"), document.get("command")
    print(show.printable(f"\n{model}, {task}:"))
    show.print_rich(_table(measured))
    show.print_note(show.printable(f"made by: {command}"))


def _table(measured: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("preset")
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    for name in (*PRESETS, *_MODES):
        found = measured.get(name)
        table.add_row(name, *(_cell(found, key, form) for key, form in _COLUMNS.values()))
    return table


def _cell(found: Any, key: str, form: str) -> str:
    value = found.get(key) if isinstance(found, dict) else None
    return form.format(value) if isinstance(value, int | float) else "-"
