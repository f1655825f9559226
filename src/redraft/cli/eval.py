"""`redraft eval`: one task, one set of measures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.command import SETTINGS, Debug, add_command
from redraft.cli.eval_decisions import decisions
from redraft.cli.eval_modes import Modes, run_task
from redraft.cli.eval_shown import Errors, Limit, Seed
from redraft.cli.eval_tasks import coherence, gsm8k, sudoku
from redraft.cli.options import Help, Json, Model, with_generation_options, with_loading_flags
from redraft.core.errors import InputError

app = typer.Typer(context_settings=SETTINGS, help="Judge a model on a task.", rich_markup_mode=None)


@app.callback(invoke_without_command=True, add_help_option=False)
def _tasks(context: typer.Context, debug: Debug = False, show_help: Help = False) -> None:
    if show_help or context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


_DATA = "OpenAI-style conversations, one a line; the last message of each is the reference."


@with_generation_options
@with_loading_flags(workers=True)
def tool_calls(
    data: Annotated[
        Path | None,
        typer.Option(help=f"{_DATA} Unset, what the model brings: held_out.jsonl.", metavar="FILE.jsonl"),
    ] = None,
    model: Model = "mini",
    limit: Limit = None,
    seed: Seed = 0,
    errors: Errors = None,
    modes: Modes = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Right function, right arguments, no call where none is due?"""
    from redraft.eval import tool_calls as task
    from redraft.eval.data import read_rows

    rows = read_rows(_brought(model) if data is None else data)
    run_task("tool-calls", task, rows, model, loading, errors, modes, as_json, seed, limit, options)


@with_generation_options
@with_loading_flags(workers=True)
def text(
    data: Annotated[Path, typer.Option(help=_DATA, metavar="FILE.jsonl")],
    model: Model = "mini",
    limit: Limit = None,
    seed: Seed = 0,
    errors: Errors = None,
    modes: Modes = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Equal to the expected text, containing it, sharing its words?"""
    from redraft.eval import text as task
    from redraft.eval.data import read_texts

    run_task("text", task, read_texts(data), model, loading, errors, modes, as_json, seed, limit, options)


def _brought(model: str) -> Path:
    """The held-out rows that a model brings along.

    Raises:
        InputError: it brings none.
    """
    from redraft.checkpoint.locate import locate

    path = locate(model) / "held_out.jsonl"
    if not path.is_file():
        raise InputError(f"--data: {model} brings no held_out.jsonl; name a file of conversations")
    return path


add_command(
    app,
    tool_calls,
    "tool-calls",
    "redraft eval tool-calls --model mini --json",
    "redraft eval tool-calls --data my.jsonl --limit 100 --errors wrong.jsonl",
    "redraft eval tool-calls --modes diffusion,autoregressive,verified",
)


add_command(app, text, "text", "redraft eval text --data my.jsonl")


add_command(
    app,
    decisions,
    "decisions",
    "redraft eval decisions --data rows.jsonl --questions questions.yaml",
    "redraft eval decisions --data rows.jsonl --compare --limit 300 --json",
)


add_command(app, gsm8k, "gsm8k", "redraft eval gsm8k --model MODEL --data test.jsonl --limit 200")


add_command(app, sudoku, "sudoku", "redraft eval sudoku --model MODEL --clues 40 --modes diffusion,autoregressive")


add_command(
    app,
    coherence,
    "coherence",
    "redraft eval coherence --model MODEL --data rows.jsonl --modes diffusion,autoregressive",
)
