"""The `redraft` command: one file per command; what is heavy is imported inside the command that needs it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from redraft import __version__
from redraft.cli import asides, completion, errors
from redraft.cli.bench import bench
from redraft.cli.chat import chat
from redraft.cli.command import SETTINGS, Debug, add_command
from redraft.cli.data import app as data_app
from redraft.cli.decide import app as decide_app
from redraft.cli.eval import app as eval_app
from redraft.cli.merge import merge
from redraft.cli.options import Help
from redraft.cli.plan import plan
from redraft.cli.presets import presets
from redraft.cli.quantize import export, quantize
from redraft.cli.run import run
from redraft.cli.serve import serve
from redraft.cli.train import train
from redraft.core.threads import spin_briefly

# Plain help: rich's costs 0.15 s and cuts long option names off at 80 columns.
app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)


@app.callback(invoke_without_command=True, add_help_option=False)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    install_completion: Annotated[
        bool, typer.Option("--install-completion", help="Complete commands and options in this shell from now on.")
    ] = False,
    show_completion: Annotated[
        bool, typer.Option("--show-completion", help="Print what that would install, to look at or to copy.")
    ] = False,
    debug: Debug = False,
    show_help: Help = False,
) -> None:
    """Run, tune and judge DiffusionGemma on the machine you own."""
    if version:
        typer.echo(f"redraft {__version__}")
        raise typer.Exit
    if install_completion or show_completion:
        completion.install() if install_completion else completion.show()
        raise typer.Exit
    if show_help or context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


add_command(
    app,
    run,
    "run",
    'redraft run "play something by Nina Simone on Spotify"',
    "echo 'what is the weather in Paris' | redraft run - --json",
)
add_command(app, chat, "chat", "redraft chat", "redraft chat --model path/to/diffusiongemma")
add_command(
    app, serve, "serve", "redraft serve --known-tools", "REDRAFT_API_KEY=... redraft serve --host 0.0.0.0 --port 9000"
)
add_command(
    app,
    train,
    "train",
    "redraft train --init mini --data my.jsonl --out run",
    "redraft train my.yaml --data my.jsonl --set steps=100",
)
app.add_typer(decide_app, name="decide")
app.add_typer(eval_app, name="eval")
app.add_typer(data_app, name="data")
add_command(
    app, bench, "bench", "redraft bench --steps 8", "redraft bench --shape mid --steps 8 --against transformers"
)
add_command(app, plan, "plan", "redraft plan", "redraft plan --device rtx-4090 --context 32768")
add_command(
    app,
    quantize,
    "quantize",
    "redraft quantize path/to/diffusiongemma small",
    "redraft quantize mini small --experts int8",
)
add_command(app, export, "export", "redraft export small again")
add_command(app, merge, "merge", "redraft merge run/adapter --base path/to/diffusiongemma --out merged")
add_command(app, presets, "presets", "redraft presets", "redraft presets --model path/to/diffusiongemma")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code; the console script's entry.

    Args:
        arguments: what follows `redraft`; None takes the process's own.
    """
    spin_briefly()
    if arguments is None:
        asides.begin()
        completion.begin()
        # Processes that this one starts import nothing from the folder that someone stands in, which may be a download.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # It was closed.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A glyph that the terminal's encoding lacks becomes "?", not an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    state = errors.State()
    command = typer.main.get_command(app)

    def invoke() -> object:
        words = list(sys.argv[1:] if arguments is None else arguments)
        return command.main(args=words, prog_name="redraft", standalone_mode=False, obj=state)

    return errors.guard(invoke, state)
