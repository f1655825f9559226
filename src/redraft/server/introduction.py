"""What a model's directory says of it to somebody who opens the page: a sentence, and requests to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from redraft.core.errors import CheckpointError
from redraft.core.files import read_json
from redraft.core.results import ModelInfo

NAME = "introduction.json"
# Anything longer is no introduction, and would push the page's own words off the screen.
MOST_EXAMPLES = 12
MOST_CHARACTERS = 300
# For a model that follows instructions and says nothing of itself.
GENERAL = (
    "Explain why the sky is blue in three sentences.",
    "Write a Python function that tells whether a number is prime.",
    "Write a short poem about a lighthouse in winter.",
    "Plan a weekend in Lisbon, with one list for each day.",
)


@dataclass(frozen=True, kw_only=True)
class Introduction:
    """Attributes:
    about: what the model is, in a sentence; None where nobody says.
    examples: requests that it answers well.
    infill: a text with a hole that it fills well, and the request that the text answers; None where nobody says.
    """

    about: str | None = None
    examples: tuple[str, ...] = ()
    infill: tuple[str, str] | None = None

    @classmethod
    def of(cls, info: ModelInfo) -> Introduction:
        """The directory's own (`introduction.json`), where there is an adapter that one's; else general requests where
        the model may understand such.

        Raises:
            CheckpointError: the file is not what it should be.
        """
        path = Path(info.adapter or info.path) / NAME
        if path.exists():
            return _checked(read_json(path), path)
        # Who knows calls by heart has learned those, and maybe nothing else; an adapter was tuned to something.
        is_general = info.adapter is None and info.has_chat_template and not info.defaults.get("tools")
        return cls(examples=GENERAL if is_general else ())


def _checked(found: Mapping[str, object], path: Path) -> Introduction:
    about, examples, infill = found.get("about"), found.get("examples", []), found.get("infill")
    if unknown := sorted(set(found) - {"about", "examples", "infill"}):
        raise CheckpointError(f"{path}: there is no field {unknown[0]!r}, only 'about', 'examples' and 'infill'")
    if about is not None and not _is_line(about):
        raise CheckpointError(f"{path}: 'about' must be a sentence of at most {MOST_CHARACTERS} characters")
    if not isinstance(examples, list) or len(examples) > MOST_EXAMPLES or not all(map(_is_line, examples)):
        most = f"at most {MOST_EXAMPLES} texts of at most {MOST_CHARACTERS} characters"
        raise CheckpointError(f"{path}: 'examples' must be a list of {most}")
    pair = None
    if infill is not None:
        fields = infill if isinstance(infill, dict) else {}
        pair = (str(fields.get("text", "")), str(fields.get("request", "")))
        if set(fields) != {"text", "request"} or not all(map(_is_line, fields.values())):
            raise CheckpointError(f"{path}: 'infill' must have a 'text' and a 'request', no longer than 'about'")
    return Introduction(about=None if about is None else str(about), examples=tuple(examples), infill=pair)


def _is_line(value: object) -> bool:
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= MOST_CHARACTERS
