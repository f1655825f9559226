"""What the words of a command line mean where they are no scalars: JSON, itself or in a file; texts that are texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redraft.core.adapters import adapter_name
from redraft.core.checks import shown
from redraft.core.errors import InputError, ModelNotFoundError, OptionError

# A text that begins with one of these is meant to be JSON and no file's name.
_JSON_BEGINS = ("{", "[")
_FORMATS = ("text", "json_object", "json_schema", "regex", "choice")


def parsed(name: str, value: Any) -> Any:
    """An option's value as the engine takes it.

    Args:
        name: of the generation option.
        value: what typer made of the words.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    read = _READERS.get(name)
    return value if read is None else read("--" + name.replace("_", "-"), value)


def text_of(words: str, place: str) -> str:
    """The words, where they are a text.

    Raises:
        InputError: they hold bytes that are no UTF-8, which Python keeps as halves of surrogate pairs.
    """
    try:
        words.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{place} is not UTF-8 text: convert it first") from None
    return words


def _json(flag: str, value: str) -> Any:
    text_of(value, flag)
    if not value.strip():
        raise InputError(f"{flag} is empty: give JSON, or a file with JSON")
    inline = value.lstrip()[:1] in _JSON_BEGINS
    try:
        return json.loads(value if inline else Path(value).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        kind = "no JSON" if inline else "neither JSON nor a file with JSON"
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{flag}: {value[:60]!r} is {kind}: {reason}") from None


def _response_format(flag: str, value: str) -> Mapping[str, Any]:
    """A format as OpenAI's clients write it, or a JSON schema itself."""
    found = _json(flag, value)
    if not isinstance(found, Mapping):
        raise InputError(
            f"{flag}: {value[:60]!r} is no JSON object; give a JSON schema, or one of {', '.join(_FORMATS)}"
        )
    if found.get("type") in _FORMATS:
        return found
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": found}}


def _tools(flag: str, value: str) -> list[Any]:
    """A list of declarations, or one of them."""
    found = _json(flag, value)
    if isinstance(found, Mapping) and found:
        found = found["tools"] if isinstance(found.get("tools"), list) else [found]
    if not isinstance(found, list):
        raise InputError(f"{flag}: {value[:60]!r} is no list of declarations")
    return found


def _canvas(flag: str, value: str) -> Any:
    """Token ids where it is a JSON list of integers, a text otherwise."""
    if not text_of(value, flag):
        raise InputError(f"{flag} is empty: give a text, or a list of token ids")
    try:
        ids = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return ids if isinstance(ids, list) and ids and all(type(i) is int for i in ids) else value


def _stop(flag: str, value: list[str]) -> list[str]:
    return [text_of(text, flag) for text in value]


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "response_format": _response_format,
    "tools": _tools,
    "initial_canvas": _canvas,
    "stop": _stop,
}


def check_writable(flag: str, path: Path) -> None:
    """Makes sure that a file can be written: a long run must not end in a bad path. What it holds stays.

    Raises:
        InputError: it cannot.
    """
    if not path.parent.is_dir():
        raise InputError(f"{flag}: there is no folder {path.parent}")
    try:
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise InputError(f"{flag}: cannot write {path} ({error.strerror}); name another file") from None


def named_adapters(words: Sequence[str], model: str) -> dict[str, Path]:
    """Directories of adapters by their names, of NAME=DIR.

    Args:
        words: as they were given.
        model: the name that the model itself is served by.

    Raises:
        OptionError: no name, or one that is taken.
        ModelNotFoundError: no such directory.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or not place:
            raise OptionError(f"--adapter: give NAME=DIR, got {shown(word)}: clients ask for it by that name")
        if name == model:
            raise OptionError(
                f"--adapter: {name!r} is the model's own name: give another, or the model a --served-name"
            )
        if adapter_name(name) in found:
            raise OptionError(f"--adapter: {name!r} is given twice")
        # Before a model is loaded for it, which may take minutes.
        if not Path(place).is_dir():
            raise ModelNotFoundError(f"--adapter: {place} is no directory with an adapter")
        found[name] = Path(place)
    return found
