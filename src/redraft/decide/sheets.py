"""Many states in a file, a row each: JSON Lines, or CSV with a header."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redraft.core.checks import shown
from redraft.core.errors import DataError
from redraft.decide.files import with_pictures
from redraft.text.lines import json_lines, numbered_lines

# What a state's column is called where nobody says: the first of these that there is.
COLUMNS = ("state", "text")
Form = Literal["csv", "jsonl"]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Rows of a file.

    Attributes:
        path: of the file.
        columns: of all rows, in the order in which they first come.
        rows: names and values; of a CSV file all texts.
        states: of each row.
        column: which of them holds the states; None: the whole row is one.
    """

    path: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    states: tuple[Any, ...]
    column: str | None


def form_of(path: str | Path) -> Form:
    """How a file's rows are written, by the end of its name.

    Raises:
        DataError: it has another.
    """
    form = Path(path).suffix.lower().removeprefix(".")
    if form not in ("csv", "jsonl"):
        raise DataError(str(path), 0, "must end in .csv or .jsonl")
    return form  # type: ignore[return-value]


def read_sheet(path: str | Path, column: str | None = None) -> Sheet:
    """The states of a file.

    Args:
        path: the file.
        column: which holds the state; None: `state`, `text`, or the whole row as JSON.

    Raises:
        DataError: the file cannot be read, has no rows, or no such column.
    """
    rows = _csv_rows(path) if form_of(path) == "csv" else [object_of(value) for _, value in json_lines(path)]
    if not rows:
        raise DataError(str(path), 0, "holds no rows")
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    if column is not None and column not in columns:
        raise DataError(str(path), 0, f"has no column {column!r}; there is {', '.join(columns)}")
    chosen = column or next((name for name in COLUMNS if name in columns), None)
    states = [
        with_pictures(row if chosen is None else row.get(chosen), path, line) for line, row in enumerate(rows, start=1)
    ]
    return Sheet(path=str(path), columns=columns, rows=tuple(rows), states=tuple(states), column=chosen)


def cell(value: Any) -> str:
    """A value as a cell of CSV: nothing, a text as it is, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def object_of(value: Any) -> Row:
    """A line of JSON as a row; what is no object is a state itself."""
    return value if isinstance(value, dict) else {"state": value}


def records(path: str | Path, content: bytes | None = None) -> list[list[str]]:
    """The records of a CSV file, its header first; a cell may hold several lines.

    Args:
        path: of the file.
        content: of the file, where it has been read.

    Raises:
        DataError: the file cannot be read, or is no such.
    """
    numbered_lines(path, content)
    text = (Path(path).read_bytes() if content is None else content).decode("utf-8-sig")
    csv.field_size_limit(2**31 - 1)
    try:
        return [record for record in csv.reader(io.StringIO(text, newline="")) if record]
    except csv.Error as error:
        raise DataError(str(path), 0, f"is no CSV: {error}") from None


def _csv_rows(path: str | Path) -> list[Row]:
    head, *found = records(path) or [[]]
    if len(set(head)) < len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise DataError(str(path), 1, f"has two columns {shown(twice)}")
    for number, record in enumerate(found, start=1):
        if len(record) != len(head):
            raise DataError(str(path), 0, f"row {number} has {len(record)} cells, the header has {len(head)}")
    return [dict(zip(head, record, strict=True)) for record in found]
