"""Files of rows: JSON Lines, a JSON list, CSV, Parquet; by their names' ends."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redraft.core.errors import DataError
from redraft.text.lines import numbered_lines, read_text, read_value

# Cells that hold JSON, of the shapes that `redraft.text.shapes` knows.
_JSON_CELLS = ("messages", "conversations", "conversation", "tools", "history", "metadata")
_SEPARATORS = (",", ";", "\t")
_LONGEST_CELL = 2**27


@dataclass(frozen=True)
class RawRow:
    """A row as its file has it.

    Attributes:
        line: where it begins, from 1; of Parquet its number.
        value: what it holds.
        reason: why it cannot be read; None where it can.
    """

    line: int
    value: Any = None
    reason: str | None = None


def raw_rows(path: str | Path) -> Iterator[RawRow]:
    """Every row of a file, one that cannot be read with its reason.

    `.json` that begins with a bracket is a list; `.csv` and `.tsv` have a header; `.parquet` needs pyarrow; everything
    else is JSON Lines. A byte order mark, CRLF and blank lines are no reason to fail.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet(path)
    if ending in (".csv", ".tsv"):
        return _csv(path)
    if ending == ".json":
        text = read_text(path)
        if text.lstrip().startswith("["):
            return _json(path, text)
    return _lines(path)


def _lines(path: Path) -> Iterator[RawRow]:
    for number, line in numbered_lines(path):
        yield _read(number, line)


def _read(number: int, text: str, where: str = "") -> RawRow:
    try:
        return RawRow(number, read_value(text))
    except ValueError as error:
        return RawRow(number, reason=f"{where}is no JSON: {error}")


def _json(path: Path, text: str) -> Iterator[RawRow]:
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        at = _beyond_blanks(text, at)
        if text[at : at + 1] == "]":
            break
        line, counted = line + text.count("\n", counted, at), at
        try:
            _, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise DataError(str(path), line, f"is no JSON: {str(error) or 'it nests too deeply'}") from None
        # Once more, for what JSON allows and nobody means: a name twice, numbers that are none.
        yield _read(line, text[at:end])
        at = _beyond_blanks(text, end)
        if text[at : at + 1] not in (",", "]"):
            raise DataError(str(path), line + text.count("\n", counted, at), "is no JSON: a comma or ] is missing")
        at += text[at] == ","
    if (rest := _beyond_blanks(text, at + 1)) < len(text):
        raise DataError(str(path), line + text.count("\n", counted, rest), "is no JSON: the list has ended before")


def _beyond_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _csv(path: Path) -> Iterator[RawRow]:
    text = read_text(path)
    header = text.lstrip("\r\n").split("\n", 1)[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(_SEPARATORS, key=header.count)
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        names: list[str] | None = None
        begins = 1
        try:
            for cells in reader:
                line, begins = begins, reader.line_num + 1
                if not any(cell.strip() for cell in cells):
                    continue
                if names is None:
                    names = [cell.strip() for cell in cells]
                    if len(set(names)) < len(names):
                        raise DataError(str(path), line, "the header names a column twice")
                    continue
                yield _of_cells(line, names, cells)
        except csv.Error as error:
            raise DataError(str(path), begins, f"is no CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _of_cells(line: int, names: list[str], cells: list[str]) -> RawRow:
    if len(cells) > len(names):
        return RawRow(line, reason=f"has {len(cells)} cells, and the header {len(names)}")
    row: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        if not cell.strip():
            continue
        row[name] = cell
        if name in _JSON_CELLS and cell.lstrip()[0] in "[{":
            found = _read(line, cell, f"its {name} ")
            if found.reason is not None:
                return found
            row[name] = found.value
    return RawRow(line, row)


def _parquet(path: Path) -> Iterator[RawRow]:
    try:
        arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    except ModuleNotFoundError:
        raise DataError(str(path), 0, "Parquet needs pyarrow: pip install 'redraft[data]'") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield RawRow(number, _without_nulls(row))
    except FileNotFoundError:
        raise DataError(str(path), 0, "no such file") from None
    except (arrow.ArrowException, OSError) as error:
        raise DataError(str(path), 0, f"cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _without_nulls(value: Any) -> Any:
    # Columns hold rows of several shapes: what one of them lacks is null there.
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
