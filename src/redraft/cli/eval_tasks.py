"""`redraft eval gsm8k`, `sudoku`, `coherence`: tasks whose rows are a published file, made, or conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.eval_modes import Modes, modes_in, run_task
from redraft.cli.eval_shown import Errors, Limit, Seed
from redraft.cli.options import Json, Model, with_generation_options, with_loading_flags


@with_generation_options
@with_loading_flags(workers=True)
def gsm8k(
    data: Annotated[
        Path, typer.Option(help="GSM8K's file of questions and answers, as published.", metavar="FILE.jsonl")
    ],
    model: Model = "mini",
    limit: Limit = None,
    seed: Seed = 0,
    errors: Errors = None,
    modes: Modes = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Word problems: is the number right?"""
    from redraft.eval.tasks import gsm8k as task

    asked = {"max_new_tokens": task.BUDGET, **(options or {})}
    run_task("gsm8k", task, task.read_rows(data), model, loading, errors, modes, as_json, seed, limit, asked)


@with_generation_options
@with_loading_flags(workers=True)
def sudoku(
    clues: Annotated[
        int, typer.Option(help="Cells that are given, at least; below some 24 they may be more.", min=17, max=80)
    ] = 40,
    count: Annotated[int, typer.Option(help="How many puzzles, made from the seed on.", min=1)] = 100,
    model: Model = "mini",
    seed: Seed = 0,
    errors: Errors = None,
    modes: Modes = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Cells that depend on each other: is the grid right?"""
    from redraft.eval.tasks import sudoku as task

    if modes is not None:
        modes_in(modes)
    rows = task.made(count, clues, seed)
    run_task("sudoku", task, rows, model, loading, errors, modes, as_json, seed, None, options)


@with_generation_options
@with_loading_flags(workers=True)
def coherence(
    data: Annotated[
        Path,
        typer.Option(help="Conversations, one a line; a person wrote the assistant's last message.", metavar="FILE"),
    ],
    model: Model = "mini",
    limit: Limit = None,
    seed: Seed = 0,
    errors: Errors = None,
    modes: Modes = None,
    loading: dict[str, Any] | None = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> None:
    """Said twice, repeated, left open: beside what people wrote?"""
    from redraft.eval.data import read_texts
    from redraft.eval.tasks import coherence as task

    run_task("coherence", task, read_texts(data), model, loading, errors, modes, as_json, seed, limit, options)
