"""Flags that several commands share. Those of a generation are read off `GenerationOptions`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from redraft.core.options import GenerationOptions, usable_options

Model = Annotated[str, typer.Option(help='"mini", a directory or a Hub id.', metavar="NAME")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1", ...', metavar="NAME")]
Dtype = Annotated[str, typer.Option(help='"auto", "float32" or "bfloat16".', metavar="NAME")]
Quantize = Annotated[
    str | None, typer.Option(help='"int8": matrices in int8, activations as --dtype says.', metavar="NAME")
]
Threads = Annotated[int | None, typer.Option(help="CPU threads; unset, torch decides.", min=1, metavar="N")]
# A group's own --help makes typer import pydantic on the way to every command: twice the time of a help.
Help = Annotated[bool, typer.Option("--help", help="Show this message and exit.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
Live = Annotated[
    bool | None,
    typer.Option("--live/--no-live", help="Draw the canvas as it settles; unset, only on a terminal."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No summary on stderr.")]


def generation_flags() -> dict[str, inspect.Parameter]:
    """One keyword parameter for each scalar generation option, unset by default, with typer's annotation."""
    hints = typing.get_type_hints(GenerationOptions)
    descriptions = _descriptions()
    flags = {}
    for field in dataclasses.fields(GenerationOptions):
        kind = _scalar(hints[field.name])
        if kind is None or field.name not in usable_options():
            continue
        flag = typer.Option(help=descriptions.get(field.name))
        flags[field.name] = inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind | None, flag],
        )
    return flags


def with_generation_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a flag for each generation option but those that it has itself; what was given arrives in its
    `options`."""
    names = inspect.signature(command).parameters
    flags = {name: flag for name, flag in generation_flags().items() if name not in names}

    @functools.wraps(command)
    def with_flags(**arguments: Any) -> None:
        values = {name: arguments.pop(name) for name in flags}
        command(**arguments, options={name: value for name, value in values.items() if value is not None})

    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [parameter for parameter in own if parameter.name != "options"]
    with_flags.__signature__ = inspect.Signature([*kept, *flags.values()])  # type: ignore[attr-defined]
    with_flags.__annotations__ = {}
    return with_flags


def _scalar(hint: Any) -> type | None:
    """The type that a flag of this option parses to; None for options that no single word can express."""
    if isinstance(hint, types.UnionType):
        [hint] = [member for member in typing.get_args(hint) if member is not type(None)]
    if typing.get_origin(hint) is Literal:
        return str
    return hint if hint in (bool, int, float, str) else None


def _descriptions() -> dict[str, str]:
    attributes = inspect.cleandoc(GenerationOptions.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8,}\S.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.replace("`", "").split()) for name, text in entries}
