"""The checkpoint's chat template, rendered in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from redraft.core.errors import CheckpointError, PromptError
from redraft.core.files import read_json

Message = Mapping[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")


class ChatTemplate:
    """Turns OpenAI-style messages into the prompt text that the model was trained on."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise CheckpointError(f"the chat template cannot be read: {error}") from None

    @classmethod
    def from_directory(cls, directory: Path) -> ChatTemplate | None:
        """`chat_template.jinja`, or the template inside `tokenizer_config.json`; None where there is none."""
        config_path = Path(directory) / "tokenizer_config.json"
        config = read_json(config_path) if config_path.exists() else {}
        special = {name: _token_text(value) for name, value in config.items() if name.endswith("_token")}
        special = {name: text for name, text in special.items() if text is not None}
        path = Path(directory) / "chat_template.jinja"
        if path.exists():
            return cls(path.read_text(encoding="utf-8"), special)
        source = config.get("chat_template")
        return cls(source, special) if isinstance(source, str) else None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        enable_thinking: bool = False,
        add_generation_prompt: bool = True,
    ) -> str:
        """The conversation as text, ready for `Tokenizer.encode`.

        Raises:
            PromptError: a message that is none, or one that the template refuses.
        """
        try:
            return self._template.render(
                messages=checked_messages(messages),
                tools=list(tools) if tools else None,
                enable_thinking=enable_thinking,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except jinja2.TemplateError as error:
            raise PromptError(f"the chat template refuses these messages: {error}") from None


def checked_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation in plain form: content as text or None, arguments of calls as mappings.

    Raises:
        PromptError: a message that is none: an unknown role, neither content nor calls, arguments that are no JSON.
    """
    if not messages:
        raise PromptError("the conversation is empty: give at least one message")
    return [_checked(message, number) for number, message in enumerate(messages)]


def _checked(message: Any, number: int) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise PromptError(f"message {number} must be a mapping with 'role' and 'content', got {message!r:.80}")
    role = message.get("role")
    if role not in ROLES:
        raise PromptError(f"message {number} has role {role!r}; known roles: {', '.join(ROLES)}")
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None and not isinstance(content, str | list):
        raise PromptError(f"message {number}: content must be text, got {content!r:.80}")
    if isinstance(content, list):
        content = _joined_parts(content, number)
    if content is None and not calls:
        raise PromptError(f"message {number} has neither content nor tool_calls")
    if role == "user" and not (content or "").strip():
        raise PromptError(f"message {number} is an empty user message")
    checked = {**message, "content": content}
    if calls is not None and not isinstance(calls, list):
        raise PromptError(f"message {number}: tool_calls must be a list")
    if calls:
        checked["tool_calls"] = [_call(call, number) for call in calls]
    return checked


def _joined_parts(parts: list[Any], number: int) -> str:
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        raise PromptError(f"message {number}: only text content parts are supported")
    return "".join(str(part.get("text", "")) for part in parts)


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise PromptError(f"message {number}: a tool call needs function.name")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError as error:
            raise PromptError(f"message {number}: the arguments of {function['name']} are no JSON: {error}") from None
    if not isinstance(arguments, Mapping):
        raise PromptError(f"message {number}: the arguments of {function['name']} must be a mapping")
    return {**call, "type": "function", "function": {**function, "arguments": dict(arguments)}}


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # jinja2's own filter escapes for HTML, which would corrupt prompts.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _token_text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None
