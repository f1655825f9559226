"""`redraft train`: one recipe, one run."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli.options import Json

if TYPE_CHECKING:
    from redraft.train.stopping import Interrupted


# peft adds to what both modes share once a name: merged by the adapter's own config, everything would count twice.
_MERGING = """to merge it: redraft merge {adapter} --base NAME --out DIR, or in Python, base being transformers' model:
  config = peft.PeftConfig.from_pretrained("{adapter}/merge_config")
  merged = peft.PeftModel.from_pretrained(base, "{adapter}", config=config).merge_and_unload()"""


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
    """Train as a recipe says; resumes by itself. Ctrl-C and SIGTERM save before they end it."""
    from redraft.cli import show

    if plot:
        from redraft.train.plot import plot_run

        path = str(plot_run(recipe, overrides or [], data))
        if as_json:
            show.print_json({"plot": path})
        else:
            print(path)
        return

    from redraft.train.run import train as run_recipe
    from redraft.train.stopping import Interrupted

    try:
        # Training logs as it goes; stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            result = run_recipe(recipe, overrides or [], data)
    except Interrupted as interrupted:
        command = _command(recipe, overrides or [], data, as_json=as_json)
        result = interrupted.result or {"steps": None, "interrupted": True}
        if as_json:
            show.print_json(result | {"go_on": command})
        # A terminal that has gone takes no words.
        with contextlib.suppress(OSError):
            print(show.printable(f"redraft: {_said(interrupted)}: {command}"), file=sys.stderr, flush=True)
        raise typer.Exit(128 + interrupted.signal) from None
    if as_json:
        show.print_json(result)
    else:
        show.print_table({name: _cell(value) for name, value in result.items()})
        if (adapter := result.get("adapter")) is not None:
            for line in _MERGING.format(adapter=adapter).splitlines():
                show.print_note(line)


def _command(recipe: Path, overrides: list[str], data: Path | None, *, as_json: bool) -> str:
    words = ["redraft", "train", str(recipe)]
    for override in overrides:
        words += ["--set", override]
    if data is not None:
        words += ["--data", str(data)]
    return shlex.join([*words, "--json"] if as_json else words)


def _said(interrupted: Interrupted) -> str:
    """What there is of a run that was interrupted."""
    result = interrupted.result
    if result is None or not result["steps"]:
        return f"{interrupted} before a step was taken: nothing had to be saved; to go on"
    found = result.get("adapter") or result.get("model")
    best = "" if found is None else f"; the best checkpoint so far is {found}"
    step = f"step {result['steps']} of {result['of_steps']}"
    return f"{interrupted}: {step} is saved in {result['state']}{best}; to go on"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)
