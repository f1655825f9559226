"""`redraft data`: published data to train on and to measure with, and what a file of one's own holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from redraft.cli.command import SETTINGS, Debug, add_command
from redraft.cli.options import Help, Json

app = typer.Typer(
    context_settings=SETTINGS,
    help="Fetch published data; see what a file of your own holds.",
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True, add_help_option=False)
def _commands(context: typer.Context, debug: Debug = False, show_help: Help = False) -> None:
    if show_help or context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def _names(incomplete: str) -> list[str]:
    from redraft.core.datasets import DATASETS

    return [dataset.name for dataset in DATASETS if dataset.name.startswith(incomplete)]


def list_(as_json: Json = False) -> None:
    """What there is, whose it is and what it is for."""
    from redraft.cli import show
    from redraft.core.datasets import DATASETS

    if as_json:
        show.print_json({dataset.name: dataclasses.asdict(dataset) for dataset in DATASETS})
        return
    for dataset in DATASETS:
        rows = sum(product.rows for product in dataset.products if product.name.endswith(".jsonl"))
        print(f"{dataset.name}: {dataset.purpose}, {rows:,} rows")
        for source in dataset.sources:
            print(f"    {source.licence}: github.com/{source.repository}\n        {source.attribution}")


def get(
    name: Annotated[
        str, typer.Argument(help="One of those that `redraft data list` names.", metavar="NAME", autocompletion=_names)
    ],
    out: Annotated[Path, typer.Option(help="The files go into a folder NAME in it.", metavar="DIR")] = Path("data"),
    base: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A mirror of raw.githubusercontent.com instead of that: an address, or a directory.",
            metavar="URL|DIR",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch a set, check it and make its files; resumes by itself."""
    from redraft.cli import show
    from redraft.core.datasets import DATASETS
    from redraft.data.get import GITHUB, get

    with show.stages(name) as on_progress:
        made = get(name, out, base=base or GITHUB, on_progress=on_progress)
    if as_json:
        show.print_json(made)
        return
    show.print_table({path: show.count(rows, "line", "lines") for path, rows in made.items()})
    for source in next(dataset.sources for dataset in DATASETS if dataset.name == name):
        show.print_note(f"{source.licence}: github.com/{source.repository} ({source.attribution})")


def check(
    file: Annotated[
        Path,
        typer.Argument(help="Conversations: JSONL, JSON, CSV or Parquet.", exists=True, dir_okay=False, metavar="FILE"),
    ],
    model: Annotated[
        str, typer.Option(help="Whose tokenizer, chat template and canvases count.", metavar="NAME|DIR")
    ] = "mini",
    max_length: Annotated[
        int | None,
        typer.Option(min=2, help="Of a row, in tokens; without it what the model can read, at most 4096.", metavar="N"),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Rows that cannot be used are counted, and are no error.")
    ] = False,
    as_json: Json = False,
) -> None:
    """See what a file holds to learn from, and what would be cut.

    Rows, turns, tokens, canvases, duplicates, bad rows by their lines, and three rows as they are learned.
    """
    from redraft.cli import show
    from redraft.cli.data_show import print_checked
    from redraft.core.errors import DataError
    from redraft.train.checking import check_data

    found = check_data(file, model, max_length)
    if as_json:
        show.print_json(found.to_dict())
    else:
        print_checked(found)
    if found.bad and not skip_bad:
        first, others = found.bad[0], len(found.bad) - 1
        more = f"; {show.count(others, 'other row is', 'other rows are')} bad, too" if others else ""
        raise DataError(first.path, first.line, f"{first.reason}{more}; --skip-bad leaves such rows out")


add_command(app, list_, "list", "redraft data list")


add_command(app, get, "get", "redraft data get mini")


add_command(app, check, "check", "redraft data check my.jsonl", "redraft data check my.csv --skip-bad --json")
