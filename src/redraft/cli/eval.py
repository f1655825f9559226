"""`redraft eval`: one task, one set of measures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.command import SETTINGS, Debug, add_command
from redraft.cli.eval_decisions import decisions
from redraft.cli.eval_modes import Modes, compare_modes
from redraft.cli.options import Help, Json, Model, with_generation_options, with_loading_flags
from redraft.core.errors import InputError

app = typer.Typer(context_settings=SETTINGS, help="Judge a model on a task.", rich_markup_mode=None)

_SHARES = (
    *("exact_match", "intent_accuracy", "slot_f1", "valid_calls", "turned_down", "wrongly_turned_down"),
    *("contains", "token_f1"),
)


@app.callback(invoke_without_command=True, add_help_option=False)
def _tasks(context: typer.Context, debug: Debug = False, show_help: Help = False) -> None:
    if show_help or context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


_DATA = "OpenAI-style conversations, one a line; the last message of each is the reference."
_Limit = Annotated[int | None, typer.Option(help="Only N of the rows, evenly spaced.", min=1, metavar="N")]
_Seed = Annotated[int, typer.Option(help="Row i is answered with seed + i.", min=0)]
_Errors = Annotated[Path | None, typer.Option(help="Write each wrong reply to this file.", metavar="FILE.jsonl")]


@with_generation_options
@with_loading_flags(workers=True)
def tool_calls(
    data: Annotated[
        Path | None,
        typer.Option(help=f"{_DATA} Unset, what the model brings: held_out.jsonl.", metavar="FILE.jsonl"),
    ] = None,
    model: Model = "mini",
    limit: _Limit = None,
    seed: _Seed = 0,
    errors: _Errors = None,
    modes: Modes = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Right function, right arguments, no call where none is due?"""
    from redraft.eval import tool_calls as task
    from redraft.eval.data import read_rows

    rows = read_rows(_brought(model) if data is None else data)
    how = {"seed": seed, "limit": limit, "options": options}
    if modes is not None:
        compare_modes("tool-calls", modes, task.is_right, rows, model, loading, errors, as_json, **how)
        return
    _measure("tool-calls", task.evaluate, rows, model, loading, errors, as_json, **how)


@with_generation_options
@with_loading_flags(workers=True)
def text(
    data: Annotated[Path, typer.Option(help=_DATA, metavar="FILE.jsonl")],
    model: Model = "mini",
    limit: _Limit = None,
    seed: _Seed = 0,
    errors: _Errors = None,
    modes: Modes = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Equal to the expected text, containing it, sharing its words?"""
    from redraft.eval import text as task
    from redraft.eval.data import read_texts

    rows, how = read_texts(data), {"seed": seed, "limit": limit, "options": options}
    if modes is not None:
        compare_modes("text", modes, task.is_right, rows, model, loading, errors, as_json, **how)
        return
    _measure("text", task.evaluate, rows, model, loading, errors, as_json, **how)


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


def _measure(
    task: str,
    evaluate: Callable[..., dict[str, Any]],
    rows: Sequence[Any],
    model: str,
    loading: dict[str, Any] | None,
    errors: Path | None,
    as_json: bool,
    **asking: Any,
) -> None:
    from redraft.cli import show

    with _writer(errors) as on_wrong:
        engine = show.load(model, loading or {})
        with show.progress(task) as on_progress:
            measures = evaluate(engine, rows, on_progress=on_progress, on_wrong=on_wrong, **asking)
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
