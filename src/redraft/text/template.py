"""Chat templates as programs: compiled, and run in Jinja's sandbox."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from redraft.core.errors import CheckpointError, PromptError
from redraft.text.template_source import DEFAULT, TOOL_USE

_FILE = "<chat template>"
# In characters. The published ones have up to thirty thousand, and what is longer takes longer to compile than to run.
_LONGEST = 2**16
_LONGEST_REASON = 500
_NOT_ASCII = re.compile("[^\x00-\x7f\ufdd0-\ufdef]")


class Template:
    """One checkpoint's templates, by name. What it is given decides how long it runs: see `GuardedTemplate`."""

    def __init__(self, sources: Mapping[str, str], special_tokens: Mapping[str, str]) -> None:
        """Raises CheckpointError where one of them is no template."""
        self.sources, self.special_tokens = dict(sources), dict(special_tokens)
        self._environment = _environment()
        self._templates = {name: self._compiled(text) for name, text in self.sources.items()}

    def render(self, values: Mapping[str, Any]) -> str:
        """The text.

        Args:
            values: what the template may name: messages, tools and options.

        Raises:
            PromptError: it refuses them.
        """
        template = self._templates.get(TOOL_USE if values.get("tools") else DEFAULT) or self._templates[DEFAULT]
        try:
            text = template.render({**self.special_tokens, **values})
            text.encode()
            return text
        except Exception as error:
            # A template is a program: it may raise anything.
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
            where = f" (line {lines[-1]})" if lines else ""
            raise PromptError(f"the chat template{where} refuses these messages: {_one_line(error)}") from None

    def _compiled(self, source: str) -> jinja2.Template:
        if len(source) > _LONGEST:
            raise CheckpointError(f"the chat template has {len(source)} characters; {_LONGEST} are read at most")
        try:
            code = self._environment.compile(source, filename=_FILE)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            where = "" if line is None else f", line {line}"
            raise CheckpointError(f"the chat template cannot be read{where}: {_one_line(error)}") from None
        except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError):
            # Python's own bounds, on the program that Jinja makes of it.
            raise CheckpointError(
                "the chat template cannot be read: it is nested too deep, or a number too long"
            ) from None
        return jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))


class _Generation(Extension):
    """`{% generation %}`, by which trainers mark what the model wrote; for a prompt, it is what stands in it."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        # Else what is constant would be computed while a template is compiled, as large as it may be.
        optimized=False,
        finalize=_as_it_is,
        extensions=[loopcontrols, _Generation],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


@jinja2.pass_context
def _as_it_is(context: Any, value: Any) -> Any:
    return value


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes for HTML, which would corrupt prompts.
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    # What stands in for a character must be found again.
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text) if ensure_ascii else text


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _one_line(error: Exception) -> str:
    said = " ".join(str(getattr(error, "message", None) or error).split())[:_LONGEST_REASON]
    said = said.encode(errors="replace").decode()
    if said and isinstance(error, jinja2.TemplateError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
