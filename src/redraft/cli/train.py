"""`redraft train`: one recipe, one run."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redraft.cli.options import Json
from redraft.core.errors import InputError

if TYPE_CHECKING:
    from redraft.train.stopping import Interrupted


# peft adds to what both modes share once a name: merged by the adapter's own config, everything would count twice.
_MERGING = """to merge it: redraft merge {adapter} --base NAME --out DIR, or in Python, base being transformers' model:
  config = peft.PeftConfig.from_pretrained("{adapter}/merge_config")
  merged = peft.PeftModel.from_pretrained(base, "{adapter}", config=config).merge_and_unload()"""


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="The recipe, a YAML file; without one, give --init, --data and --out.",
            exists=True,
            dir_okay=False,
            metavar="RECIPE.yaml",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the recipe; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Train on this file instead of the recipe's: JSONL, JSON, CSV or Parquet.", metavar="FILE"),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Begin with this model; without a recipe, an adapter of it is trained.", metavar="NAME|DIR"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write there; without a recipe, the one that was made, too.", metavar="DIR")
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            help="What makes a reply to a held-out prompt right: exact, calls, contains or none.", metavar="NAME"
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that cannot be used, and count them.")
    ] = False,
    watch: Annotated[
        list[str] | None,
        typer.Option(help="Figures go there, too: tensorboard, or wandb (offline); may be repeated.", metavar="NAME"),
    ] = None,
    plot: Annotated[
        bool, typer.Option("--plot", help="Do not train: draw the run's curves so far and print the path.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train as a recipe says; resumes by itself. Ctrl-C and SIGTERM save before they end it."""
    from redraft.cli import show

    asked = _Asked(recipe, overrides or [], data, init, out, grader, watch or [], skip_bad, as_json)
    recipe, changes, data = asked.settled(makes=not plot)
    if plot:
        from redraft.train.plot import plot_run

        path = str(plot_run(recipe, changes, data))
        if as_json:
            show.print_json({"plot": path})
        else:
            print(path)
        return

    from redraft.cli.train_judge import judge
    from redraft.train.run import train as run_recipe
    from redraft.train.stopping import Interrupted

    try:
        # Training logs as it goes; stdout is for the result.
        with contextlib.redirect_stdout(sys.stderr):
            result = run_recipe(recipe, changes, data, judge)
    except Interrupted as interrupted:
        command = asked.command()
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


@dataclass(frozen=True)
class _Asked:
    """The options of one command line."""

    recipe: Path | None
    overrides: list[str]
    data: Path | None
    init: str | None
    out: Path | None
    grader: str | None
    watch: list[str]
    skip_bad: bool
    as_json: bool

    def settled(self, *, makes: bool) -> tuple[Path, list[str], Path | None]:
        """(recipe, what it is changed by, data in the place of its own); without a recipe it `makes` one.

        Raises:
            InputError: neither a recipe nor what one is made of.
        """
        named = {"grader": self.grader, "watch": self.watch or None, "skip_bad": self.skip_bad or None}
        if self.recipe is not None:
            named |= {"init": self.init, "output": None if self.out is None else str(self.out.resolve())}
        given = [f"{name}={json.dumps(value)}" for name, value in named.items() if value is not None]
        changes = [*self.overrides, *given]
        if self.recipe is not None:
            return self.recipe, changes, self.data
        if self.init is None or self.data is None or self.out is None:
            raise InputError("name a recipe, or give all of --init, --data and --out")
        if not makes:
            return self.out / "recipe.yaml", [], None
        from redraft.train.defaults import write_default_recipe

        return write_default_recipe(self.init, self.data, self.out, changes, skip_bad=self.skip_bad), [], None

    def command(self) -> str:
        """The same command once more."""
        words = ["redraft", "train", *([] if self.recipe is None else [str(self.recipe)])]
        for override in self.overrides:
            words += ["--set", override]
        named = {"--data": self.data, "--init": self.init, "--out": self.out, "--grader": self.grader}
        for name, value in named.items():
            words += [] if value is None else [name, str(value)]
        for name in self.watch:
            words += ["--watch", name]
        flags = {"--skip-bad": self.skip_bad, "--json": self.as_json}
        return shlex.join([*words, *(flag for flag, given in flags.items() if given)])


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
