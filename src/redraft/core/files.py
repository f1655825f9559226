"""Small files that everyone reads the same way."""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from redraft.core.errors import CheckpointError, OptionError

# Of the published models no file that is read whole has a tenth of this, and none nests deeper than nine.
_LARGEST_BYTES = 100 * 10**6
_DEEPEST = 64


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: the file is missing, is no JSON, or holds no object.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise CheckpointError(f"{path} has {size} bytes; a JSON file of a model has at most {_LARGEST_BYTES}")
        value = parse_object(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: a model directory needs it") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    _check_nested(value, str(path))
    return value


def parse_object(data: bytes | str, source: str) -> dict[str, Any]:
    """The JSON object in these bytes; no name in it may be said twice. How deep it is and what its texts hold, whoever
    does not know what belongs there has to check.

    Raises:
        CheckpointError: it is none; names the source.
    """
    if isinstance(data, bytes) and data.startswith(codecs.BOM_UTF8):
        raise CheckpointError(f"{source} is not valid JSON: it begins with a byte order mark; save it as UTF-8 without")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_each_once)
    except RecursionError:
        raise CheckpointError(f"{source} is not valid JSON: it is nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError, _SaidTwice) as error:
        raise CheckpointError(f"{source} is not valid JSON: {error}") from None
    except ValueError:
        raise CheckpointError(f"{source} is not valid JSON: a number has thousands of digits") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{source} must hold a JSON object")
    return value


class _SaidTwice(ValueError):
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = Counter(name for name, _ in pairs)
        raise _SaidTwice(f"{names.most_common(1)[0][0]!r:.80} is said twice")
    return found


def _check_nested(value: dict[str, Any], source: str) -> None:
    """Refuses what is nested beyond any use, and texts that are none: halves of a surrogate pair cannot be printed."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        texts = [part for part in level if isinstance(part, str)]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            bad = next(text for text in texts if not _is_text(text))
            raise CheckpointError(f"{source} is not valid JSON: {bad!r:.80} holds half a surrogate pair") from None
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in ((*part, *part.values()) if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise CheckpointError(f"{source} is not valid JSON: it is nested too deeply")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def replace_text(path: Path, text: str) -> None:
    """Writes a file so that whoever reads it, even after a crash, finds what was there before or the text, whole."""
    fresh = path.with_name(path.name + ".part")
    fresh.write_text(text, encoding="utf-8")
    flush(fresh)
    os.replace(fresh, path)


def flush(path: Path) -> None:
    """Waits until a file's content, or the names in a directory, are on disk: a rename alone does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_directory(name: str) -> Path:
    """Where redraft keeps what it can make again, under the user's cache; made where it is not there yet. What lies in
    it is run, or read without another look, so nobody else may write there.

    Raises:
        OptionError: it cannot be made, is someone else's, or others may write to it.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    # The standard has a relative one ignored: it would be another place from each folder.
    own = (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "redraft"
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        for folder in (own, own / name):
            folder.mkdir(mode=0o700, exist_ok=True)
            if os.name == "posix":
                _claim(folder)
    except OSError as error:
        reason = f"{own} cannot be made or used ({error.strerror or error})"
        raise OptionError(f"{reason}: name another place with XDG_CACHE_HOME") from None
    return own / name


def _claim(folder: Path) -> None:
    found = folder.stat()
    way_out = f"remove {folder}, or name another place with XDG_CACHE_HOME"
    if found.st_uid != os.getuid():
        raise OptionError(f"{folder} belongs to another user, who could change what is run from it: {way_out}")
    if found.st_mode & 0o022:
        raise OptionError(f"others may write to {folder}, and could change what is run from it: {way_out}")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
