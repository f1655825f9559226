"""The checkpoint's chat template, rendered in a sandbox."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from redraft.core.errors import CheckpointError, PromptError
from redraft.text.messages import Message, check_values, checked_messages
from redraft.text.prompt_text import PromptText, Shield
from redraft.text.template_source import DEFAULT, TOOL_USE, template_sources
from redraft.text.tokenizer import Tokenizer

_FILE = "<chat template>"
_NOT_ASCII = re.compile("[^\x00-\x7f\ufdd0-\ufdef]")


class ChatTemplate:
    """Turns OpenAI-style messages into the prompt that the model was trained on."""

    def __init__(self, source: str | Mapping[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        """`source` is a template, or several by name: "default", and "tool_use" for requests with tools.

        Raises:
            CheckpointError: one of them is no template.
        """
        self._environment = _environment()
        self._special_tokens = dict(special_tokens or {})
        sources = {DEFAULT: source} if isinstance(source, str) else source
        self._templates = {name: self._compiled(text) for name, text in sources.items()}

    @classmethod
    def from_directory(cls, directory: Path) -> ChatTemplate | None:
        """The directory's own (see `template_sources`); None where there is none."""
        sources, special = template_sources(Path(directory))
        return cls(sources, special) if sources else None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = False,
        add_generation_prompt: bool = True,
    ) -> str:
        """The conversation as text. For ids, see `prompt`: here, what someone typed may spell a marker.

        Raises:
            PromptError: a message that is none, or one that the template refuses.
        """
        return self._rendered(checked_messages(messages), tools, enable_thinking, add_generation_prompt)

    def prompt(
        self,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = False,
        add_generation_prompt: bool = True,
        own: Collection[str] = (),
    ) -> PromptText:
        """The conversation, ready to be encoded, in which contents, names and declarations are text.

        Args:
            tokenizer: of the model.
            messages, tools, enable_thinking, add_generation_prompt: as the template knows them.
            own: roles whose words are the model's own, in which a marker is one; in training, the assistant's.

        Raises:
            PromptError: as `render`, and for declarations that cannot be encoded.
        """
        checked = checked_messages(messages)
        if tools:
            check_values(list(tools), "tools")
        shield = Shield.against(tokenizer.beginnings, checked, list(tools or ()))
        shielded = shield.over(list(tools)) if tools else None
        typed = [message if message["role"] in own else shield.over(message) for message in checked]
        text = self._rendered(typed, shielded, enable_thinking, add_generation_prompt)
        return PromptText(text, shield)

    def _compiled(self, source: str) -> jinja2.Template:
        try:
            code = self._environment.compile(source, filename=_FILE)
        except jinja2.TemplateError as error:
            line = getattr(error, "lineno", None)
            where = "" if line is None else f", line {line}"
            raise CheckpointError(f"the chat template cannot be read{where}: {_one_line(error)}") from None
        except RecursionError:
            raise CheckpointError("the chat template cannot be read: it is nested too deep") from None
        return jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))

    def _rendered(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        enable_thinking: bool,
        add_generation_prompt: bool,
    ) -> str:
        template = self._templates.get(TOOL_USE if tools else DEFAULT) or self._templates[DEFAULT]
        try:
            return template.render(
                messages=messages,
                tools=list(tools) if tools else None,
                enable_thinking=enable_thinking,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except Exception as error:
            # A template is a program: it may raise anything.
            lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
            where = f" (line {lines[-1]})" if lines else ""
            raise PromptError(f"the chat template{where} refuses these messages: {_one_line(error)}") from None


class _Generation(Extension):
    """`{% generation %}`, by which trainers mark what the model wrote; for a prompt, it is what stands in it."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


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
    said = " ".join(str(getattr(error, "message", None) or error).split()) or type(error).__name__
    return said if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {said}"
