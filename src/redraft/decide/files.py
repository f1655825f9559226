"""States and questions in files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from redraft.core.decisions import Refusal
from redraft.core.errors import DataError
from redraft.core.questions import Question
from redraft.decide.given import questions_of
from redraft.text.lines import read_value
from redraft.text.messages import ROLES
from redraft.text.row_pictures import found_parts

_JSON_BEGINS = ("{", "[")


def read_questions(given: str | Path) -> list[Question | Refusal]:
    """Questions by what names them.

    Args:
        given: a file, JSON where its name ends so, else YAML; or JSON itself.

    Raises:
        DataError: there is no such file, or none of that kind.
        QuestionError: what it holds are no questions.
    """
    text = str(given)
    if text.lstrip()[:1] in _JSON_BEGINS:
        return questions_of(_json(text, "the text"))
    path = Path(given)
    if path.suffix == ".json":
        return questions_of(_json(_text(path), str(path)))
    return questions_of(_yaml(_text(path), str(path)))


def read_state(path: str | Path) -> Any:
    """A state by its file: JSON where its name ends so, else its text.

    Raises:
        DataError: there is no such file, or it is no JSON.
    """
    path = Path(path)
    if path.suffix == ".json":
        return with_pictures(_json(_text(path), str(path)), path, 0)
    return _text(path).rstrip("\n")


def with_pictures(state: Any, path: str | Path, line: int) -> Any:
    """A state in a file with the paths of its pictures, which are counted from the file's folder and stay in it.

    Raises:
        DataError: one that does not.
    """
    messages = state.get("messages") if isinstance(state, Mapping) else state
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return state
    try:
        found = [
            message | {"content": found_parts(message["content"], Path(path).parent, f"message {number}")}
            if "content" in message and message.get("role") in ROLES
            else message
            for number, message in enumerate(messages)
        ]
    except ValueError as error:
        raise DataError(str(path), line, str(error)) from None
    return {**state, "messages": found} if isinstance(state, Mapping) else found


def state_in(text: str) -> Any:
    """A state by its text: JSON where it is an object or a list, as a program pipes it, else the text."""
    if text.lstrip()[:1] in _JSON_BEGINS:
        try:
            return read_value(text)
        except ValueError:
            return text
    return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(str(path), 0, f"is not UTF-8 text: {error}") from None


def _json(text: str, name: str) -> Any:
    try:
        return read_value(text)
    except ValueError as error:
        raise DataError(name, 0, f"is no JSON: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML in which a name that stands there twice is an error, as in JSON."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _yaml(text: str, name: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    # The second: a date that no calendar has.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(name, 0, f"is no YAML: {' '.join(str(error).split())}") from None
