"""What was asked and answered, in a file that its owner alone can read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from redraft.core.errors import OptionError
from redraft.core.results import Generation

_log = logging.getLogger(__name__)


class PromptLog:
    """One JSON document a line: a request when it is taken, each of its replies when it has ended."""

    def __init__(self, path: Path) -> None:
        """Opens the file to add to it.

        Raises:
            OptionError: it cannot be written, or others may read it.
        """
        try:
            number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise OptionError(f"log_prompts: cannot write {path}: {error.strerror}") from None
        if os.name == "posix" and os.fstat(number).st_mode & 0o077:
            os.close(number)
            raise OptionError(f"log_prompts: others may read {path}: chmod 600 it, or name another file")
        self._file = os.fdopen(number, "a", encoding="utf-8")

    def request(self, request_id: str, body: BaseModel) -> None:
        """Takes down what a client has sent."""
        self._write({"id": request_id, "request": _without_pictures(body.model_dump(exclude_unset=True))})

    def reply(self, request_id: str, number: int, generation: Generation) -> None:
        """Takes down how one of its replies ended."""
        told = generation.to_dict()
        names = ("text", "reasoning", "tool_calls", "finish_reason", "seed", "error", "raw")
        self._write({"id": request_id, "choice": number, "reply": {name: told[name] for name in names}})

    def answer(self, request_id: str, told: dict[str, Any]) -> None:
        """Takes down how a request ended that has no choices."""
        self._write({"id": request_id, "reply": told})

    def close(self) -> None:
        """Ends it."""
        self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(json.dumps({"time": now, **entry}) + "\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            # Whoever asked gets the answer all the same.
            _log.error("a prompt could not be logged: %s", error)


def _without_pictures(value: Any) -> Any:
    """The same with a few words in the place of each picture: its kind, its size and what its bytes are known by."""
    if isinstance(value, str) and value.startswith("data:"):
        kind = value[:40].partition(",")[0]
        return f"{kind},... ({len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()})"
    if isinstance(value, dict):
        return {name: _without_pictures(part) for name, part in value.items()}
    return [_without_pictures(part) for part in value] if isinstance(value, list) else value
