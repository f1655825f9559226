"""Flags that several commands share. Those of a generation are read off `GenerationOptions`."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from redraft.cli.command import MODEL, OUTPUT
from redraft.cli.values import parsed
from redraft.core.changes import ImageAttention, Mode, SamplerName
from redraft.core.option_groups import GROUPS
from redraft.core.options import GenerationOptions
from redraft.core.presets import PRESETS


def _print_help(context: typer.Context, value: bool) -> None:
    if value and not context.resilient_parsing:
        typer.echo(context.get_help())
        raise typer.Exit


def one_of(*choices: str) -> Callable[[str], list[str]]:
    """What completes a value that has few; the shell itself knows files and directories."""
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def option(text: str | None, *names: str, panel: str = MODEL, **more: Any) -> Any:
    """An option in a group of the help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


_DEVICES, _DTYPES = one_of("auto", "cpu", "cuda", "xpu", "mps"), one_of("auto", "float32", "bfloat16")
_MODEL = option('"mini", a directory, a GGUF file or a Hub id.', metavar="NAME", autocompletion=one_of("mini"))
Model = Annotated[str, _MODEL]
Device = Annotated[str, option('"auto", "cpu", "cuda", "cuda:1", ...', metavar="NAME", autocompletion=_DEVICES)]
Dtype = Annotated[str, option('"auto", "float32" or "bfloat16".', metavar="NAME", autocompletion=_DTYPES)]
Quantize = Annotated[
    str | None,
    option(
        '"int8", "int4" (experts int4, the rest int8) or "fp8": round as it loads.',
        metavar="NAME",
        autocompletion=one_of("int8", "int4", "fp8"),
    ),
]
Threads = Annotated[int | None, option("CPU threads; unset, torch decides.", min=1, metavar="N")]
Memory = Annotated[
    float | None,
    option(
        "GB of memory to use; experts beyond it stay on disk, beside a GPU in host memory. Unset, what is free.",
        min=0.1,
        metavar="GB",
    ),
]
Context = Annotated[
    int | None,
    option("Tokens of prompt and reply together; unset, the checkpoint's.", "--max-context", min=1, metavar="N"),
]
Adapter = Annotated[str | None, option("A directory with an adapter of this model, ours or peft's.", metavar="DIR")]
Verify = Annotated[bool, option("Check a quantised model's checksums as it loads.", "--verify")]
Workers = Annotated[
    int | None,
    option("Processes that share the requests; unset, one a thread for a small model.", min=1, metavar="N"),
]
Vision = Annotated[
    str,
    option(
        'When the tower for pictures is read: "lazy" with the first one, "eager" or "off".',
        metavar="NAME",
        autocompletion=one_of("lazy", "eager", "off"),
    ),
]
Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--image",
        help="A picture that the text is about; repeat it for several. Of an animation, its first frame.",
        metavar="FILE",
        rich_help_panel="Pictures",
    ),
]
Videos = Annotated[
    list[Path] | None,
    typer.Option(
        "--video",
        help="A video that the text is about, of which 32 frames are looked at; repeat it for several.",
        metavar="FILE",
        rich_help_panel="Pictures",
    ),
]
# A group's own --help makes typer import pydantic on the way to every command: twice the time of a help.
Help = Annotated[bool, typer.Option("--help", "-h", help="Show this message and exit.")]
# The same of a group that has options besides: it is looked at before them.
EagerHelp = Annotated[
    bool,
    typer.Option("--help", "-h", help="Show this message and exit.", is_eager=True, expose_value=False,
                 callback=_print_help, rich_help_panel=OUTPUT),
]  # fmt: skip
Json = Annotated[bool, option("Print one JSON document on stdout, and nothing else.", "--json", panel=OUTPUT)]
Live = Annotated[
    bool | None,
    option("Draw the canvas as it settles; unset, only on a terminal.", "--live/--no-live", panel=OUTPUT),
]
Quiet = Annotated[bool, option("No summary on stderr.", "--quiet", "-q", panel=OUTPUT)]


# Options that are no scalars, and what a flag of theirs takes: a text, several, or JSON (itself, or a file with it).
_SPELLED: dict[str, Any] = {
    "stop": list[str], "initial_canvas": str, "tools": str, "response_format": str, "sampler": str,
}  # fmt: skip
# What stands for a value in the help, where a type alone says too little.
_METAVARS = {"tools": "JSON|FILE", "response_format": "SCHEMA|FILE", "initial_canvas": "TEXT|IDS", "stop": "TEXT"}
_METAVARS |= {"tool_choice": "NAME", "preset": "NAME", "mode": "|".join(typing.get_args(Mode))}
_METAVARS |= {"sampler": "|".join(typing.get_args(SamplerName))}
_METAVARS |= {"image_attention": "NAME", "image_tokens": "N"}
_METAVARS_OF_TYPES = {int: "N", float: "X", str: "TEXT"}
_CHOICES = {"preset": tuple(PRESETS), "mode": typing.get_args(Mode), "tool_choice": ("auto", "none", "required")}
_CHOICES |= {"sampler": typing.get_args(SamplerName), "image_attention": typing.get_args(ImageAttention)}


def generation_flags() -> dict[str, inspect.Parameter]:
    """One keyword parameter for each generation option that a flag can spell, unset by default, as typer wants it."""
    hints = typing.get_type_hints(GenerationOptions)
    said = descriptions()
    kinds = {name: _SPELLED.get(name) or scalar(hint) for name, hint in hints.items()}
    flags = {}
    for group in GROUPS:
        for name in (name for name in group.names if kinds[name] is not None):
            metavar = _METAVARS.get(name) or _METAVARS_OF_TYPES.get(kinds[name])
            completing = one_of(*_CHOICES[name]) if name in _CHOICES else None
            flag = option(said.get(name), panel=group.title, metavar=metavar, autocompletion=completing)
            annotation = Annotated[kinds[name] | None, flag]
            kind = inspect.Parameter.KEYWORD_ONLY
            flags[name] = inspect.Parameter(name, kind, default=None, annotation=annotation)
    return flags


def with_generation_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a flag for each generation option but those that it has itself; what was given arrives in its
    `options`."""

    def gathered(values: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in values.items() if value is not None and value != []}
        return {name: parsed(name, value) for name, value in given.items()}

    return with_flags(command, "options", generation_flags(), gathered)


def with_loading_flags(
    *, workers: bool = False, adapter: bool = True, vision: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with the flags by which a model is loaded, in the place of its `loading`, which is what `redraft.load`
    takes beside the model; `workers`: with several processes, `adapter`: with one adapter, `vision`: with pictures,
    where the command can use them."""
    hints = {"device": Device, "dtype": Dtype, "quantize": Quantize, "memory": Memory, "max_context": Context}
    hints |= {"verify": Verify, "threads": Threads} | ({"workers": Workers} if workers else {})
    hints |= {"adapter": Adapter} if adapter else {}
    hints |= {"vision": Vision} if vision else {}
    defaults = {"device": "auto", "dtype": "auto", "verify": False, "vision": "lazy"}
    flags = {
        name: inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation
        )
        for name, annotation in hints.items()
    }  # fmt: skip

    def gathered(values: dict[str, Any]) -> dict[str, Any]:
        memory, chosen = values.pop("memory"), values.pop("adapter", None)
        return values | {"memory_gb": memory} | ({} if chosen is None else {"adapter": chosen})

    return lambda command: with_flags(command, "loading", flags, gathered)


def with_flags(
    command: Callable[..., None],
    place: str,
    flags: dict[str, inspect.Parameter],
    gathered: Callable[[dict[str, Any]], Any],
) -> Callable[..., None]:
    """A command with some flags where it has a parameter `place`, which gets what is gathered of them."""
    own = inspect.signature(command, eval_str=True).parameters
    flags = {name: flag for name, flag in flags.items() if name not in own}

    @functools.wraps(command)
    def flagged(**arguments: Any) -> None:
        found = gathered({name: arguments.pop(name) for name in flags})
        command(**arguments, **{place: found})

    parameters = [
        flag.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in own.items()
        for flag in (flags.values() if name == place else (parameter,))
    ]
    flagged.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flagged.__annotations__ = {}
    return flagged


def scalar(hint: Any) -> type | None:
    """The type that a flag of this option parses to; None for options that no single word can express."""
    if isinstance(hint, types.UnionType):
        [hint] = [member for member in typing.get_args(hint) if member is not type(None)]
    if typing.get_origin(hint) is Literal:
        return str
    return hint if hint in (bool, int, float, str) else None


def descriptions(options: type = GenerationOptions) -> dict[str, str]:
    """What the attributes of a dataclass of options mean, as its docstring says."""
    attributes = inspect.cleandoc(options.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8,}\S.*)*)", attributes, re.MULTILINE)
    said = {name: " ".join(text.replace("`", "").split()) for name, text in entries}
    return {name: text[:1].upper() + text[1:] for name, text in said.items()}
