"""`redraft eval`: one task, one set of measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.options import (
    Help,
    Json,
    Model,
    with_generation_options,
    with_loading_flags,
)
from redraft.core.errors import InputError

app = typer.Typer(help="Judge a model on a task.", rich_markup_mode=None)

_SHARES = ("exact_match", "intent_accuracy", "slot_f1", "valid_calls", "turned_down", "wrongly_turned_down")


@app.callback(invoke_without_command=True, add_help_option=False)
def _tasks(context: typer.Context, show_help: Help = False) -> None:
    if show_help or context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


@app.command("tool-calls")
@with_generation_options
@with_loading_flags(workers=True)
def tool_calls(
    data: Annotated[
        Path,
        typer.Option(
            help="OpenAI-style conversations, one a line; the last message of each is the reference.",
            exists=True,
            dir_okay=False,
            metavar="FILE.jsonl",
        ),
    ],
    model: Model = "mini",
    limit: Annotated[int | None, typer.Option(help="Only N of the rows, evenly spaced.", min=1, metavar="N")] = None,
    seed: Annotated[int, typer.Option(help="Row i is answered with seed + i.", min=0)] = 0,
    errors: Annotated[
        Path | None, typer.Option(help="Write each wrong reply to this file.", metavar="FILE.jsonl")
    ] = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Right function, right arguments, and no call where none is due?"""
    from redraft.cli import show
    from redraft.eval.data import read_rows
    from redraft.eval.tool_calls import evaluate

    rows = read_rows(data)
    with _writer(errors) as on_wrong:
        engine = show.load(model, loading or {})
        with show.progress("tool-calls") as on_progress:
            measures = evaluate(
                engine, rows, seed=seed, limit=limit, options=options, on_progress=on_progress, on_wrong=on_wrong
            )
    if as_json:
        show.print_json(measures)
    else:
        show.print_table({name: _cell(name, value) for name, value in measures.items()})


@contextmanager
def _writer(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None] | None]:
    """Writes one JSON line per call. The file is opened at once: a long run must not end in a bad path."""
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--errors: cannot write {path} ({error.strerror}); name another file") from error
    with file:
        yield lambda wrong: print(json.dumps(wrong), file=file, flush=True)


def _cell(name: str, value: float | int | None) -> str:
    if value is None:
        return "-"
    if name in _SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
