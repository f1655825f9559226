"""A calibration as JSON, and in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redraft.core.calibration import Calibration
from redraft.core.checks import shown
from redraft.core.errors import DataError, OptionError
from redraft.text.lines import read_value

VERSION = 1
_FIELDS = ("version", "temperatures", "thresholds", "questions", "bound_to", "measured")
_MAPS = ("temperatures", "thresholds", "bound_to", "measured")


def to_dict(calibration: Calibration) -> dict[str, Any]:
    """As JSON has it; a threshold that nothing reaches is null."""
    thresholds = {name: None if math.isinf(value) else value for name, value in calibration.thresholds.items()}
    return {
        "version": VERSION,
        "temperatures": dict(calibration.temperatures),
        "thresholds": thresholds,
        "questions": list(calibration.questions),
        "bound_to": dict(calibration.bound_to),
        "measured": dict(calibration.measured),
    }


def from_dict(value: Any) -> Calibration:
    """The calibration that a JSON value is.

    Raises:
        OptionError: it is none; names the field.
    """
    if not isinstance(value, Mapping):
        raise OptionError(f"calibration must be an object, got {shown(value)}")
    version = value.get("version")
    if version != VERSION or isinstance(version, bool):
        raise OptionError(f"calibration: version must be {VERSION}, got {shown(version)}: calibrate again")
    for field in value:
        if field not in _FIELDS:
            raise OptionError(f"calibration: {shown(field)} is no field of it; there is {', '.join(_FIELDS)}")
    maps = {field: value.get(field, {}) for field in _MAPS}
    for field, found in maps.items():
        if not isinstance(found, Mapping):
            raise OptionError(f"calibration: {field} must be an object, got {shown(found)}")
    questions = value.get("questions", [])
    if not (isinstance(questions, list) and all(isinstance(key, str) for key in questions)):
        raise OptionError(f"calibration: questions must be a list of keys, got {shown(questions)}")
    for name, temperature in maps["temperatures"].items():
        if not (_is_number(temperature) and 0.01 <= temperature <= 100):
            said = f"temperatures: {shown(name)} must be a number from 0.01 to 100, got {shown(temperature)}"
            raise OptionError(f"calibration: {said}")
    for name, threshold in maps["thresholds"].items():
        if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= 1):
            said = f"thresholds: {shown(name)} must be a probability or null, got {shown(threshold)}"
            raise OptionError(f"calibration: {said}")
    thresholds = {name: math.inf if each is None else float(each) for name, each in maps["thresholds"].items()}
    temperatures = {name: float(each) for name, each in maps["temperatures"].items()}
    return Calibration(
        temperatures=temperatures,
        thresholds=thresholds,
        questions=tuple(questions),
        bound_to=maps["bound_to"],
        measured=maps["measured"],
    )


def save(calibration: Calibration, path: str | Path) -> None:
    """Writes it; a file of that name is replaced.

    Raises:
        DataError: it cannot be written.
    """
    text = json.dumps(to_dict(calibration), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be written: {error.strerror}") from None


def read(path: str | Path) -> Calibration:
    """Reads one.

    Raises:
        DataError: there is none, or none that is one.
    """
    try:
        return from_dict(read_value(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(str(path), 0, f"cannot be read: {error.strerror}") from None
    except OptionError as error:
        raise DataError(str(path), 0, str(error)) from None
    except ValueError as error:
        raise DataError(str(path), 0, f"is no JSON: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
