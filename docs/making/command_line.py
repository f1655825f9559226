"""The command-line reference, read off the commands themselves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import typer

from redraft.cli import app
from redraft.core.options import GenerationOptions

_HEAD = """# The command line

Every command with its options, read off the commands themselves when this site was built. `redraft COMMAND --help` says
the same in a terminal. Replies and tables go to stdout; progress, notes and summaries go to stderr. `--json` puts one
JSON document on stdout and nothing else.

| exit code | meaning |
|---|---|
| 0 | done |
| 2 | bad usage or bad input: one line on stderr says what, and how to mend it |
| 1 | anything else; `redraft --debug COMMAND` shows where |
| 130, 143 | interrupted; training has saved its state first |
"""
_OPTIONS = {field.name for field in dataclasses.fields(GenerationOptions)}


def command_line_page() -> str:
    """The page."""
    root = typer.main.get_command(app)
    return "\n".join([_HEAD, *_command(root, ["redraft"])])


def _command(command: Any, path: list[str]) -> Iterator[str]:
    name = " ".join(path)
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"## {name}" if len(path) < 3 else f"### {name}"
    yield ""
    yield _sentences(command.help or "")
    yield ""
    children = getattr(command, "commands", {})
    if not children:
        yield f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```\n"
    yield from _parameters(command, context)
    for child, below in children.items():
        if not below.hidden:
            yield from _command(below, [*path, child])


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """Tables of what a command takes; generation options, which several share, have a page of their own."""
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    shared = [p for p in shown if p.name in _OPTIONS and p.param_type_name == "option"]
    # One that only this command has beside its own, such as the seed of an evaluation, is its own.
    shared = shared if len(shared) > 3 else []
    panels: dict[str, list[Any]] = {}
    for parameter in shown:
        if parameter not in shared:
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or "", []).append(parameter)
    for panel, parameters in panels.items():
        if panel:
            yield f"**{panel}**\n"
        yield "| option | what it does |\n|---|---|"
        for names, told in filter(None, (parameter.get_help_record(context) for parameter in parameters)):
            yield f"| `{_cell(names)}` | {_cell(told)} |"
        yield ""
    if shared:
        flags = (f"[`{p.opts[0]}`](options.md#{p.name})" for p in shared)
        yield f"Generation options, as [the table by meaning](options.md) tells them: {', '.join(flags)}.\n"


def _cell(text: str) -> str:
    return _sentences(text).replace("|", "\\|")


def _sentences(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
