"""`redraft train`: one recipe, one run."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from redraft.cli.options import Json
from redraft.core.errors import InputError


def train(
    recipe: Annotated[
        Path, typer.Argument(help="The recipe, a YAML file.", exists=True, dir_okay=False, metavar="RECIPE.yaml")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the recipe; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Train on this file instead of the recipe's.", metavar="FILE.jsonl"),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Do not train: draw the run's curves so far and print the path.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train as a recipe says; resumes by itself."""
    from redraft.cli import show

    if plot and data is not None:
        raise InputError("--plot draws what a run has logged: --data would do nothing")
    if plot:
        from redraft.train.plot import plot_run

        path = str(plot_run(recipe, overrides or []))
        if as_json:
            show.print_json({"plot": path})
        else:
            print(path)
        return

    from redraft.train.run import train as run_recipe

    # Training logs as it goes; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = run_recipe(recipe, overrides or [], data)
    if as_json:
        show.print_json(result)
    else:
        show.print_table({name: _cell(value) for name, value in result.items()})


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
