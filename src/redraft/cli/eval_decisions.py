"""`redraft eval decisions`: typed questions beside what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.calibrate import ROWS
from redraft.cli.decide_options import Questions, askable, questions_in, with_decide_options
from redraft.cli.options import Json, Model, with_loading_flags
from redraft.core.questions import DecideOptions


@with_decide_options()
@with_loading_flags()
def decisions(
    data: Annotated[Path, typer.Option(help=ROWS, metavar="ROWS.jsonl")],
    questions: Questions = None,
    model: Model = "mini",
    limit: Annotated[int | None, typer.Option(help="Only N of the rows, evenly spaced.", min=1, metavar="N")] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Set joint against separate, canvas against causal mode and written answers, on the rows."
        ),
    ] = False,
    flips: Annotated[
        bool,
        typer.Option("--flips/--no-flips", help="Ask again in reversed order and with other noise."),
    ] = True,
    loading: dict[str, Any] | None = None,
    options: DecideOptions | None = None,
    as_json: Json = False,
) -> None:
    """How often right, how well calibrated, how steady, how fast?"""
    from redraft.cli import show
    from redraft.decide.rows import read_rows
    from redraft.eval.answers import evenly
    from redraft.eval.decisions import evaluate
    from redraft.eval.ways import compare as compared

    rows = evenly(read_rows(data, None if questions is None else askable(questions_in(questions))), limit)
    engine = show.load(model, loading or {})
    with show.stages("decisions") as on_progress:
        asked = options or DecideOptions()
        if compare:
            result = compared(engine, rows, asked, on_progress=on_progress)
        else:
            result = evaluate(engine, rows, asked, flips=flips, on_progress=on_progress)
    if as_json:
        show.print_json(result)
        return
    from redraft.cli.decide_tables import print_measures, print_ways

    print_ways(result) if compare else print_measures(result)
