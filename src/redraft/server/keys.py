"""Where the key comes from: the command line, a file, the environment, or chance."""

from __future__ import annotations

import os
import secrets
from collections.abc import MutableMapping
from pathlib import Path

from redraft.core.errors import OptionError

VARIABLE = "REDRAFT_API_KEY"
_LONGEST_BYTES = 4096


def find_key(given: str | None, file: Path | None, environment: MutableMapping[str, str]) -> tuple[str, bool]:
    """(the key that clients must bring, whether it was made for this start and nobody has it yet).

    Args:
        given: on the command line, where everyone on the machine sees it.
        file: holds it, for its owner alone; one that is not there is made, and keeps its key between starts.
        environment: may have it in `REDRAFT_API_KEY`, and is rid of it then: nothing that is started needs it.

    Raises:
        OptionError: two of the former, an empty one, or a file that cannot be used.
    """
    if given is not None and file is not None:
        raise OptionError("--api-key and --api-key-file exclude each other: drop one of them")
    variable = environment.pop(VARIABLE, None)
    if given is not None:
        return given, False
    if file is not None:
        return _of_file(file), False
    if variable is None:
        return secrets.token_urlsafe(24), True
    if not variable.strip():
        raise OptionError(f"{VARIABLE} is empty: give it a key, or unset it")
    return variable.strip(), False


def _of_file(path: Path) -> str:
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise OptionError(f"--api-key-file: cannot write {path}: {error.strerror}") from None
    key = secrets.token_urlsafe(24)
    with os.fdopen(made, "w", encoding="ascii") as file:
        file.write(key + "\n")
    return key


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise OptionError(f"--api-key-file: others may read {path}: chmod 600 it, and change the key")
            key = file.read(_LONGEST_BYTES + 1).strip()
    except OSError as error:
        raise OptionError(f"--api-key-file: cannot read {path}: {error.strerror}") from None
    if not key or len(key) > _LONGEST_BYTES or len(key.splitlines()) > 1:
        raise OptionError(f"--api-key-file: {path} must hold one line, the key")
    # What is not ASCII is refused with all other keys.
    return key.decode("latin-1")
