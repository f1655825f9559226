"""`redraft eval TASK --modes`: the modes of one model beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.core.errors import OptionError

Modes = Annotated[
    str | None,
    typer.Option(
        help="Set modes beside each other, the first against the others: diffusion,autoregressive,verified.",
        metavar="NAMES",
    ),
]
_DASH = "-"


def compare_modes(
    task: str,
    modes: str,
    is_right: Callable[..., bool],
    rows: Sequence[Any],
    model: str,
    loading: Mapping[str, Any] | None,
    errors: Path | None,
    as_json: bool,
    **asking: Any,
) -> None:
    """Answers the rows in these modes, and prints a line of each.

    Raises:
        OptionError: these are no modes, or something was given that goes with one mode.
    """
    from redraft.cli import show
    from redraft.eval.modes import check_modes, side_by_side

    names = [name.strip() for name in modes.split(",") if name.strip()]
    check_modes(names)
    if errors is not None:
        raise OptionError("--errors goes with one mode: --mode NAME in place of --modes")
    if "mode" in (asking.get("options") or {}):
        raise OptionError("--mode and --modes say the same thing: give one")
    engine = show.load(model, loading or {})
    with show.progress(task) as on_progress:
        lines = side_by_side(engine, rows, is_right, names, on_progress=on_progress, **asking)
    if as_json:
        show.print_json({"task": task, "modes": lines})
    else:
        show.print_rich(_table(lines))


def _table(lines: Sequence[Mapping[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{lines[0]['n']} rows", title_justify="left")
    heads = (
        "mode", "right", f"beside {lines[0]['mode']}, points", "won : lost, p", "tokens a pass", "steps a canvas",
        "s a request", "cut off",
    )  # fmt: skip
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for line in lines:
        table.add_row(*_cells(line))
    return table


def _cells(line: Mapping[str, Any]) -> list[str]:
    right = f"{100 * line['right']:.1f} % [{100 * line['low']:.1f}, {100 * line['high']:.1f}]"
    beside = told = _DASH
    if line["p"] is not None:
        middle, low, high = (100 * line[name] for name in ("against", "against_low", "against_high"))
        beside, told = f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]", f"{line['won']} : {line['lost']}, {line['p']:.2g}"
    costs = (
        ("tokens_per_pass", ".1f"), ("denoising_steps_per_canvas", ".1f"), ("seconds_per_request", ".3f"),
    )  # fmt: skip
    spent = [_DASH if line[name] is None else format(line[name], form) for name, form in costs]
    return [line["mode"], right, beside, told, *spent, f"{100 * line['cut']:.1f} %"]
