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

from redraft.core.errors import InputError
from redraft.core.options import GenerationOptions

Model = Annotated[str, typer.Option(help='"mini", a directory, a GGUF file or a Hub id.', metavar="NAME")]
Device = Annotated[str, typer.Option(help='"auto", "cpu", "cuda", "cuda:1", ...', metavar="NAME")]
Dtype = Annotated[str, typer.Option(help='"auto", "float32" or "bfloat16".', metavar="NAME")]
Quantize = Annotated[
    str | None,
    typer.Option(help='"int8", "int4" (experts int4, the rest int8) or "fp8": round as it loads.', metavar="NAME"),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads; unset, torch decides.", min=1, metavar="N")]
Memory = Annotated[
    float | None,
    typer.Option(
        help="GB of memory to use; experts beyond it stay on disk, beside a GPU in host memory. Unset, what is free.",
        min=0.1,
        metavar="GB",
    ),
]
Verify = Annotated[bool, typer.Option("--verify", help="Check a quantised model's checksums as it loads.")]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that share the requests; unset, one a thread for a small model.", min=1, metavar="N"),
]
# A group's own --help makes typer import pydantic on the way to every command: twice the time of a help.
Help = Annotated[bool, typer.Option("--help", help="Show this message and exit.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
Live = Annotated[
    bool | None,
    typer.Option("--live/--no-live", help="Draw the canvas as it settles; unset, only on a terminal."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No summary on stderr.")]


# Options that are no scalars, and what a flag of theirs takes: a text, several, or JSON (itself, or a file with it).
_SPELLED: dict[str, Any] = {"stop": list[str], "initial_canvas": str, "tools": str, "response_format": str}
_JSON = ("tools", "response_format")


def generation_flags() -> dict[str, inspect.Parameter]:
    """One keyword parameter for each generation option that a flag can spell, unset by default, as typer wants it."""
    hints = typing.get_type_hints(GenerationOptions)
    descriptions = _descriptions()
    flags = {}
    for field in dataclasses.fields(GenerationOptions):
        kind = _SPELLED.get(field.name) or _scalar(hints[field.name])
        if kind is None:
            continue
        metavar = "JSON" if field.name in _JSON else None
        flag = typer.Option(help=descriptions.get(field.name), metavar=metavar)
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

    def gathered(values: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in values.items() if value is not None and value != []}
        return {name: _parsed(name, value) for name, value in given.items()}

    return _with_flags(command, "options", generation_flags(), gathered)


def with_loading_flags(*, workers: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with the flags by which a model is loaded, in the place of its `loading`, which is what `redraft.load`
    takes beside the model; `workers`: with several processes, where the command can use them."""
    hints = {"device": Device, "dtype": Dtype, "quantize": Quantize, "memory": Memory, "verify": Verify}
    hints |= {"threads": Threads} | ({"workers": Workers} if workers else {})
    defaults = {"device": "auto", "dtype": "auto", "verify": False}
    flags = {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation
        )
        for name, annotation in hints.items()
    }  # fmt: skip

    def gathered(values: dict[str, Any]) -> dict[str, Any]:
        memory = values.pop("memory")
        return values | {"memory_gb": memory}

    return lambda command: _with_flags(command, "loading", flags, gathered)


def _with_flags(
    command: Callable[..., None],
    place: str,
    flags: dict[str, inspect.Parameter],
    gathered: Callable[[dict[str, Any]], Any],
) -> Callable[..., None]:
    """A command with some flags where it has a parameter `place`, which gets what is gathered of them."""
    own = inspect.signature(command, eval_str=True).parameters
    flags = {name: flag for name, flag in flags.items() if name not in own}

    @functools.wraps(command)
    def with_flags(**arguments: Any) -> None:
        found = gathered({name: arguments.pop(name) for name in flags})
        command(**arguments, **{place: found})

    parameters = [
        flag.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.items()
        for flag in (flags.values() if name == place else (parameter,))
    ]
    with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_flags.__annotations__ = {}
    return with_flags


def _parsed(name: str, value: Any) -> Any:
    """The option's value: JSON from a file or from the command line itself, where it is a structure.

    Raises:
        InputError: it is neither.
    """
    if name not in _JSON:
        return value
    import json
    from pathlib import Path

    try:
        text = value if value.lstrip()[:1] in ("{", "[") else Path(value).read_text(encoding="utf-8")
        return json.loads(text)
    except (OSError, ValueError) as error:
        flag = "--" + name.replace("_", "-")
        raise InputError(f"{flag}: {value[:60]!r} is neither JSON nor a file with JSON: {error}") from None


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
