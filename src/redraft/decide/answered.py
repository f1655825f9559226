"""A file of rows with their answers, written row by row: what it has already is not asked again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from redraft.core.decisions import Answer, Decisions, Refusal
from redraft.core.errors import DataError, QuestionError
from redraft.core.questions import DecideOptions, Question
from redraft.core.strict_json import strict_json
from redraft.decide.calibration import key_of
from redraft.decide.prompts import FORM
from redraft.decide.sheets import Form, Row, Sheet, cell, form_of, object_of, records
from redraft.text.lines import numbered_lines, read_value

ERROR, ASKED = "error", "asked"


def names_of(questions: Sequence[Question]) -> tuple[str, ...]:
    """What the questions' columns are called: their names, `question_1` and so on where they have none."""
    return tuple(question.name or f"question_{number}" for number, question in enumerate(questions, start=1))


def columns_of(questions: Sequence[Question], sheet: Sheet) -> tuple[str, ...]:
    """The columns of answers.

    Raises:
        DataError: the rows have a column that every file of answers has.
        QuestionError: one that the rows, or another question, have already.
    """
    taken, found = sheet.columns, []
    if own := [column for column in (ERROR, ASKED) if column in taken]:
        raise DataError(sheet.path, 0, f"has a column {own[0]!r} already, which the answers need: rename it")
    for name, question in zip(names_of(questions), questions, strict=True):
        for column in (name, *(f"{name}_{part}" for part in _parts(question))):
            if column in (*taken, *found, ERROR, ASKED):
                raise QuestionError(f"name {name!r}", f"would make a second column {column!r}: give it another")
            found.append(column)
    return tuple(found)


def answers_of(questions: Sequence[Question], decisions: Decisions) -> Row:
    """A row's answers, by column. An answer that was withheld is null, and its probabilities are there."""
    found: Row = {}
    for name, question, answer in zip(names_of(questions), questions, decisions.answers, strict=True):
        seen = answer.answer if isinstance(answer, Refusal) else answer
        found[name] = None if isinstance(answer, Refusal) else answer.value
        if seen is not None:
            found |= {f"{name}_{part}": value for part, value in _values(question, seen).items()}
        found[f"{name}_note"] = _note(answer)
    return found


def asked_key(identity: Mapping[str, Any], questions: Sequence[Question], options: DecideOptions, sheet: Sheet) -> str:
    """What a row's answers depend on besides the row, in a few digits: the model, the questions, the options, how they
    are put, and what of the row is the state."""
    asked = [[question.name, key_of(question)] for question in questions]
    # In a CSV file a state is text, whatever it looks like.
    read = [sheet.column, form_of(sheet.path)]
    text = json.dumps([FORM, dict(identity), asked, asdict(options), read], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A file of rows with their answers, as far as it has come.

    Attributes:
        path: of the file.
        form: how it is written.
        sheet: the rows that it is to have.
        columns: those of the answers.
        key: see `asked_key`; stands last in every row, so that a row that has it is whole.
    """

    path: Path
    form: Form
    sheet: Sheet
    columns: tuple[str, ...]
    key: str

    def begin(self) -> int:
        """Makes the file ready to be written on; a last row that was cut off is taken out of it.

        Returns:
            How many of the rows it has already.

        Raises:
            DataError: it holds something else, or cannot be written.
        """
        try:
            there = self.path.read_bytes() if self.path.exists() else b""
            rows = self._whole(_whole_characters(there)) if there else []
            for number, row in enumerate(rows):
                self._check(number, row)
            text = (self._head() + "".join(map(self.line, rows))).encode()
            if not there or not there.endswith(b"\n") or len(rows) < self._count(there):
                beside = self.path.with_name(self.path.name + ".part")
                beside.write_bytes(text)
                os.replace(beside, self.path)
        except OSError as error:
            raise DataError(str(self.path), 0, f"cannot be written: {error.strerror}") from None
        return len(rows)

    def line(self, row: Mapping[str, Any]) -> str:
        """A row as it is written."""
        if self.form == "jsonl":
            return strict_json(dict(row), ensure_ascii=False) + "\n"
        return _csv_line([cell(row.get(name)) for name in self._header])

    def row(self, number: int, answers: Row | None, error: str | None = None) -> Row:
        """One of the sheet's rows with its answers, or with why it has none."""
        own = {} if error is None else {ERROR: error}
        return {**self.sheet.rows[number], **(answers or {}), **own, ASKED: self.key}

    @property
    def _header(self) -> tuple[str, ...]:
        return (*self.sheet.columns, *self.columns, ERROR, ASKED)

    def _head(self) -> str:
        return _csv_line(self._header) if self.form == "csv" else ""

    def _count(self, there: bytes) -> int:
        of = records if self.form == "csv" else numbered_lines
        return len(of(self.path, _whole_characters(there))) - (self.form == "csv")

    def _whole(self, there: bytes) -> list[Row]:
        """The rows that were written to their end."""
        if self.form == "csv":
            head, *found = records(self.path, there) or [[]]
            if tuple(head) != self._header:
                raise self._other("its columns are others")
            if found and (len(found[-1]) < len(head) or len(found[-1][-1]) < len(self.key)):
                found.pop()
            return [dict(zip(head, record, strict=False)) for record in found]
        lines, rows = numbered_lines(self.path, there), []
        for place, (number, line) in enumerate(lines, start=1):
            try:
                rows.append(object_of(read_value(line)))
            except ValueError as error:
                if place < len(lines):
                    raise DataError(str(self.path), number, f"is no JSON: {error}") from None
        return rows

    def _check(self, number: int, row: Row) -> None:
        if number >= len(self.sheet.rows):
            raise self._other(f"it has more rows than {self.sheet.path}")
        of = cell if self.form == "csv" else _itself
        wanted = {name: of(value) for name, value in self.sheet.rows[number].items()}
        if {name: row.get(name) for name in wanted} != wanted or not {*row} <= {*self._header}:
            raise self._other(f"its row {number + 1} is not that of {self.sheet.path}")
        if row.get(ASKED) != self.key:
            raise self._other(f"its row {number + 1} was asked other questions, or otherwise")

    def _other(self, reason: str) -> DataError:
        return DataError(str(self.path), 0, f"cannot be gone on with: {reason}; name another file")


def _parts(question: Question) -> tuple[str, ...]:
    of_kind = {"predicate": ("probability", "confidence"), "choice": ("confidence", "probabilities"),
               "score": ("score", "confidence", "probabilities")}  # fmt: skip
    return (*of_kind[question.kind], "label_mass", "note")


def _values(question: Question, answer: Answer) -> Row:
    values = {"score": answer.score, "probability": answer.score, "confidence": answer.confidence,
              "probabilities": list(answer.probabilities), "label_mass": answer.label_mass}  # fmt: skip
    return {part: values[part] for part in _parts(question) if part in values}


def _note(answer: Answer | Refusal) -> str:
    """In words: why there is no answer, or what speaks against it."""
    if isinstance(answer, Refusal):
        return f"{'abstained' if answer.code == 'abstained' else 'cannot be asked'}: {answer.reason}"
    return f"in doubt: {', '.join(answer.doubts)}" if answer.doubts else ""


def _whole_characters(there: bytes) -> bytes:
    """Without the bytes of a last character that was cut off; all others are looked at by who reads them."""
    try:
        there.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return there[: error.start]
    return there


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    # Cells are quoted that hold a character of the line's end: a carriage return ends lines, too.
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _itself(value: Any) -> Any:
    return value
