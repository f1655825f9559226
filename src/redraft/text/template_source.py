"""Where a checkpoint keeps its chat templates."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redraft.core.errors import CheckpointError
from redraft.core.files import read_json

DEFAULT, TOOL_USE = "default", "tool_use"
_LONGEST = 10**6
_BUNDLED = Path(__file__).parents[1] / "models" / "mini" / "chat_template.jinja"


def template_sources(directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(template sources by name, the texts of the special tokens that they may use).

    Read are `chat_template.jinja` with `additional_chat_templates/NAME.jinja` beside it, else `chat_template.json`,
    else `tokenizer_config.json`; the latter two may hold one template or a list of named ones.

    Raises:
        CheckpointError: a file that cannot be read, or templates of which none is the default.
    """
    config_path = directory / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    special = {name: _token_text(value) for name, value in config.items() if name.endswith("_token")}
    own, other = directory / "chat_template.jinja", directory / "chat_template.json"
    sources: dict[str, str] = {}
    source = own
    if own.exists():
        more = sorted((directory / "additional_chat_templates").glob("*.jinja"))
        sources = {DEFAULT: _text(own), **{path.stem: _text(path) for path in more}}
    elif other.exists():
        source = other
        sources = _named(read_json(other).get("chat_template"), other)
    elif config.get("chat_template") is not None:
        source = config_path
        sources = _named(config["chat_template"], config_path)
    if sources and DEFAULT not in sources:
        raise CheckpointError(f"{source}: its chat templates are {', '.join(map(repr, sources))}, none is {DEFAULT!r}")
    return sources, {name: text for name, text in special.items() if text is not None}


@functools.cache
def _bundled() -> str:
    return _text(_BUNDLED)


def is_bundled(source: str) -> bool:
    """Whether this is the template of the model that ships with the package."""
    return source == _bundled()


def _named(value: Any, path: Path) -> dict[str, str]:
    if isinstance(value, str):
        return {DEFAULT: value}
    entries = value if isinstance(value, list) else []
    if not entries or not all(isinstance(entry, Mapping) for entry in entries):
        raise CheckpointError(f"{path}: chat_template must be a text, or a list of named ones")
    named = {entry.get("name"): entry.get("template") for entry in entries}
    if not all(isinstance(text, str) for item in named.items() for text in item):
        raise CheckpointError(f"{path}: each entry of chat_template needs a name and a template, both texts")
    return named


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            # What is longer is refused by whoever compiles it.
            return file.read(_LONGEST)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text: {error}") from None


def _token_text(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None
