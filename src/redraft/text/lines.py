"""Files of lines, as JSON Lines has them: a line ends at a line feed and nowhere else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redraft.core.datasets import command_for, shortest
from redraft.core.errors import DataError

# What JSON calls white space; a line separator of Unicode is text.
_BLANK = " \t\r"


def numbered_lines(path: str | Path, content: bytes | None = None) -> list[tuple[int, str]]:
    """Every line of a UTF-8 file that is not blank, with its number from 1; a byte order mark is skipped.

    Args:
        path: of the file.
        content: of the file, where it has been read.

    Raises:
        DataError: the file cannot be read or is no UTF-8.
    """
    text = read_text(path, content)
    # Python's own splitlines would part texts at U+2028, U+2029 and U+0085, too.
    stripped = ((number, line.strip(_BLANK)) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in stripped if line]


def read_text(path: str | Path, content: bytes | None = None) -> str:
    """A UTF-8 file's text, without a byte order mark.

    Raises:
        DataError: see `numbered_lines`.
    """
    path = Path(path)
    try:
        content = path.read_bytes() if content is None else content
    except FileNotFoundError:
        command = command_for(path)
        way_out = f"; `{command}` fetches it" if command else ""
        raise DataError(shortest(path), 0, f"no such file{way_out}") from None
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(str(path), line, f"is not UTF-8 text: {error}") from None


def json_lines(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Every value of a JSON Lines file, with its line's number.

    Raises:
        DataError: as `numbered_lines`, or a line that is no JSON, or whose text or numbers cannot be written again.
    """
    for number, line in numbered_lines(path):
        try:
            yield number, read_value(line)
        except ValueError as error:
            raise DataError(str(path), number, f"is no JSON: {error}") from None


def read_value(text: str) -> Any:
    """The JSON value that a text is.

    Raises:
        ValueError: it is none, or nests too deeply, or holds a name twice, half of a surrogate pair, or a number that
            is none or has no end.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refused, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a surrogate pair, {error.object[error.start]!a}, is no text") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        # Python's own words are about a setting of Python's.
        raise ValueError("a number has thousands of digits") if "integer string" in str(error) else error from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)!r} stands there twice")
    return found


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON's")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits:.40} is too large a number")
    return value
