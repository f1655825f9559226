"""What every command has beside its own options: `-h`, `--debug` anywhere, options in groups with an example."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from redraft.cli import errors
from redraft.core.option_groups import GROUPS

# Titles of groups that are no generation options.
MODEL, OUTPUT = "Model and machine", "Output"
ASKED = "How it is found out"
DOORS, LIMITS, SERVED = "Where and for whom", "Limits", "What is served"
EXAMPLES: Mapping[str, str] = {group.title: group.example for group in GROUPS} | {
    MODEL: "--model path/to/diffusiongemma --quantize int8 --threads 2",
    DOORS: "--host 0.0.0.0 --api-key-file key.txt",
    ASKED: "--joint --draws 4 --least-confidence 0.8",
    SERVED: "--known-tools --log-prompts prompts.jsonl",
    LIMITS: "--max-running 4 --timeout 120",
}
SETTINGS: dict[str, Any] = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


def _remember(context: typer.Context, value: bool) -> None:
    if value:
        context.ensure_object(errors.State).debug = True


Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        callback=_remember,
        is_eager=True,
        expose_value=False,
        help="Show the traceback of an error.",
        rich_help_panel=OUTPUT,
    ),
]


def add_command(app: typer.Typer, function: Callable[..., None], name: str, *examples: str) -> None:
    """Makes a function a command of the app: with `--debug`, grouped options, and examples."""
    signature = inspect.signature(function, eval_str=True)
    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)

    @functools.wraps(function)
    def command(debug: bool = False, **arguments: Any) -> None:
        function(**arguments)

    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), debug])  # type: ignore[attr-defined]
    command.__annotations__ = {}
    app.command(name, cls=Command, epilog="\n".join(examples))(command)


class _Grouped:
    """Options are listed by their `rich_help_panel`, in which rich itself has no part; the epilog is examples, one a
    line."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the groups in the order in which they first come, each with its example."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):  # type: ignore[attr-defined]
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else "Options"
                # click's own help option stands in no panel.
                panel = getattr(parameter, "rich_help_panel", None) or (OUTPUT if parameter.name == "help" else own)
                sections.setdefault(panel, []).append(record)
        # Behind all others, which are what somebody looks for.
        sections[OUTPUT] = sections.pop(OUTPUT)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
                    if self._takes(example := EXAMPLES.get(title)):
                        _write_as_it_stands(formatter, f"e.g. {example}")
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)

    def _takes(self, example: str | None) -> bool:
        known = {name for parameter in self.params for name in parameter.opts}  # type: ignore[attr-defined]
        return example is not None and known.issuperset(re.findall(r"--[a-z][\w-]*", example))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples."""
        epilog = self.epilog  # type: ignore[attr-defined]
        if epilog:
            with formatter.section("Examples"):
                for line in epilog.splitlines():
                    _write_as_it_stands(formatter, line)


class Command(_Grouped, TyperCommand):
    """One command, its options in groups."""


class Group(_Grouped, TyperGroup):
    """A command that has others below it, its own options in groups."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As every group, but that nothing of its own is looked at on the way to one below: typer would import pydantic
        for it, which takes a help as long as all the rest."""
        if not args or args[0] not in self.commands:
            return super().parse_args(ctx, args)
        own, self.params = self.params, []
        try:
            rest = super().parse_args(ctx, args)
        finally:
            self.params = own
        ctx.params = {each.name: each.get_default(ctx) for each in own if each.expose_value}
        return rest


def _write_as_it_stands(formatter: Any, text: str) -> None:
    # What is wrapped cannot be copied.
    formatter.write(f"{'':{formatter.current_indent}}{text}\n")
