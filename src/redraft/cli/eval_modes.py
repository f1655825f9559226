"""`redraft eval TASK --modes`: the modes of one model beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.eval_shown import measure, writer
from redraft.core.errors import InputError, OptionError

Modes = Annotated[
    str | None,
    typer.Option(
        help="Set modes beside the first: diffusion,autoregressive,verified. The last two are greedy unless "
        "--temperature is given.",
        metavar="NAMES",
    ),
]
_DASH = "-"


def modes_in(modes: str) -> list[str]:
    """The names in a list with commas.

    Raises:
        OptionError: they are no modes.
    """
    from redraft.eval.modes import check_modes

    names = [name.strip() for name in modes.split(",") if name.strip()]
    check_modes(names)
    return names


def run_task(
    name: str,
    task: Any,
    rows: Sequence[Any],
    model: str,
    loading: dict[str, Any] | None,
    errors: Path | None,
    modes: str | None,
    as_json: bool,
    seed: int,
    limit: int | None,
    options: dict[str, Any] | None,
) -> None:
    """Measures a task's replies, or sets its modes beside each other where any are named.

    Args:
        name: of the task.
        task: its module, with `evaluate` and `is_right`.
        rows: what it asks.
        model, loading, errors, modes, as_json, seed, limit, options: as the flags of every task give them.
    """
    how = {"seed": seed, "limit": limit, "options": options}
    if modes is not None:
        _compare(name, modes, task.is_right, rows, model, loading, errors, as_json, **how)
    else:
        measure(name, task.evaluate, rows, model, loading, errors, as_json, **how)


def _compare(
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
    """Answers the rows in these modes, and prints what is known of each.

    Raises:
        OptionError: these are no modes, or something was given that goes with one mode.
        InputError: there are no rows.
    """
    from redraft.cli import show
    from redraft.eval.modes import side_by_side

    names = modes_in(modes)
    if "mode" in (asking.get("options") or {}):
        raise OptionError("--mode and --modes say the same thing: give one")
    if not rows:
        raise InputError("there are no rows to compare modes on")
    with writer(errors) as on_wrong:
        engine = show.load(model, loading or {})
        with show.progress(task) as on_progress:
            lines = side_by_side(engine, rows, is_right, names, on_progress=on_progress, on_wrong=on_wrong, **asking)
    if as_json:
        show.print_json({"task": task, "modes": lines})
    else:
        show.print_rich(_table(lines))


def _table(lines: Sequence[Mapping[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    from redraft.cli.show import count

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(count(lines[0]["n"], "row", "rows"), no_wrap=True)
    for line in lines:
        table.add_column(line["mode"], justify="right", no_wrap=True)
    for name, cell in _ROWS.items():
        if len(lines) > 1 or name not in _BESIDE:
            table.add_row(name, *(cell(line) for line in lines))
    return table


def _points(line: Mapping[str, Any]) -> str:
    return _DASH if line["p"] is None else f"{100 * line['against']:+.1f}"


def _points_between(line: Mapping[str, Any]) -> str:
    if line["p"] is None:
        return _DASH
    return f"[{100 * line['against_low']:+.1f}, {100 * line['against_high']:+.1f}]"


def _told(line: Mapping[str, Any]) -> str:
    return _DASH if line["p"] is None else f"{line['won']} : {line['lost']}"


def _cost(name: str, form: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda line: _DASH if line[name] is None else format(line[name], form)


# What stands in each row; a share's interval is Wilson's, a difference's a bootstrap's.
_ROWS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "right": lambda line: f"{100 * line['right']:.1f} %",
    "  with 95 %": lambda line: f"[{100 * line['low']:.1f}, {100 * line['high']:.1f}]",
    "beside the first, points": _points,
    "  with 95 %, points": _points_between,
    "right here : there alone": _told,
    "  exact p": lambda line: _DASH if line["p"] is None else f"{line['p']:.2g}",
    "tokens a pass": _cost("tokens_per_pass", ".1f"),
    "steps a canvas": _cost("denoising_steps_per_canvas", ".1f"),
    "seconds a request": _cost("seconds_per_request", ".3f"),
    "cut off": lambda line: f"{100 * line['cut']:.1f} %",
    "failed": lambda line: str(line["n_failed"]),
}
_BESIDE = ("beside the first, points", "  with 95 %, points", "right here : there alone", "  exact p")
