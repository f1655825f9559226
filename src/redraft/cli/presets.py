"""`redraft presets`: named sets of options, and what they measure on mini's task."""

from __future__ import annotations

from typing import Any

from redraft.cli.options import Json
from redraft.core.presets import PRESETS


def presets(as_json: Json = False) -> None:
    """List the presets with their options and what they measure."""
    from redraft.checkpoint.locate import BUNDLED
    from redraft.cli import show
    from redraft.core.files import read_json

    path = BUNDLED / "mini" / "presets.json"
    measured: dict[str, Any] = read_json(path) if path.exists() else {}
    if as_json:
        found = measured.get("presets", {})
        show.print_json({name: {"options": PRESETS[name], "measured": found.get(name)} for name in PRESETS})
        return
    show.print_rich(_table(measured))
    if measured:
        show.print_note(f"{measured['task']}; made by: {measured['command']}")


def _table(measured: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("preset", "options", "exact match", "valid calls", "steps/canvas", "s/request"):
        table.add_column(name, justify="left" if name in ("preset", "options") else "right")
    for name, options in PRESETS.items():
        found = measured.get("presets", {}).get(name)
        cells = ["-"] * 4
        if found:
            shares = [f"{100 * found[key]:.1f} %" for key in ("exact_match", "valid_calls")]
            costs = [f"{found['denoising_steps_per_canvas']:.1f}", f"{found['seconds_per_request']:.3f}"]
            cells = shares + costs
        table.add_row(name, ", ".join(f"{key}={value}" for key, value in options.items()), *cells)
    return table
