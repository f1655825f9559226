"""Calibration: what labelled rows say of probabilities, found out, kept in a file, and applied."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from redraft.core.calibration import Calibration
from redraft.core.checks import shown
from redraft.core.decisions import Answer
from redraft.core.errors import OptionError
from redraft.core.questions import DecideOptions, Question
from redraft.core.results import ModelInfo
from redraft.decide.known import Known
from redraft.decide.looks import softmax
from redraft.decide.prompts import FORM

# Below it a probability says nothing that a temperature could repair.
FLOOR = 1e-12
_BOUND = ("reader", "joint", "draws", "gate_nats", "more_draws", "second_reader", "steps", "width", "empty_thought")


def identity_of(info: ModelInfo) -> dict[str, Any]:
    """What a calibration is bound to of a model."""
    return {name: getattr(info, name) for name in ("fingerprint", "parameters", "dtype", "quantization")}


def key_of(question: Question) -> str:
    """A question's own key: of what the model sees of it."""
    options = [[type(o.value).__name__, o.value, o.description, o.reply] for o in question.options]
    text = json.dumps([question.kind, question.instructions, question.form, options], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tempered(probabilities: Sequence[float], temperature: float) -> tuple[float, ...]:
    """Probabilities at a temperature."""
    return softmax([math.log(max(p, FLOOR)) / temperature for p in probabilities])


def calibrated(answer: Answer, calibration: Calibration) -> Answer:
    """An answer at its question's temperature, or its kind's; as it was read where there is neither, or the question
    was none of those that the calibration was found with."""
    temperature = _of(calibration, calibration.temperatures, answer.question)
    if temperature is None:
        return answer
    return replace(answer, probabilities=tempered(answer.raw, temperature), calibrated=True)


def threshold_of(calibration: Calibration, question: Question) -> float | None:
    """The least confidence that was accurate enough; infinite where none was, None where none was wanted."""
    return _of(calibration, calibration.thresholds, question)


def bound_to(known: Known, options: DecideOptions) -> dict[str, Any]:
    """What probabilities depend on, besides the questions: a calibration holds for this alone."""
    return {**_of_model(known.identity), **_of_options(options)}


def check(calibration: Calibration, known: Known, options: DecideOptions) -> None:
    """Makes sure that a calibration is of this model and these options.

    Raises:
        OptionError: it is of others; names what differs.
    """
    _check(dict(calibration.bound_to), bound_to(known, options))


def check_model(calibration: Calibration, identity: Mapping[str, Any]) -> None:
    """Makes sure that a calibration is of the model of this identity, whatever the options.

    Raises:
        OptionError: it is of another; names what differs.
    """
    wanted = _of_model(identity)
    _check({name: calibration.bound_to.get(name) for name in wanted}, wanted)


def suits(calibration: Calibration, options: DecideOptions) -> bool:
    """Whether a calibration was found with these options."""
    wanted = _plain(_of_options(options))
    return wanted == _plain({name: calibration.bound_to.get(name) for name in wanted})


def _of_model(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {"form": FORM, "model": dict(identity)}


def _of_options(options: DecideOptions) -> dict[str, Any]:
    place = "behind" if options.state == "behind" else "before"
    return {"state": place, **{name: getattr(options, name) for name in _BOUND}}


def _plain(value: Any) -> Any:
    """As a file has it."""
    return json.loads(json.dumps(value))


def _check(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if (wrong := _differing(_plain(found), _plain(wanted))) is not None:
        name, of, here = wrong
        said = f"it was found with {name} {shown(of)}, here it is {shown(here)}"
        raise OptionError(f"calibration is of something else: {said}; calibrate again, or leave it out")


def _differing(found: Mapping[str, Any], wanted: Mapping[str, Any], within: str = "") -> tuple[str, Any, Any] | None:
    for name in sorted({*found, *wanted}):
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            if (inner := _differing(one, other, f"{within}{name}.")) is not None:
                return inner
        elif one != other:
            return f"{within}{name}", one, other
    return None


def _of(calibration: Calibration, values: Mapping[str, float], question: Question) -> float | None:
    key = key_of(question)
    # What rows of other questions of its kind say, they say of those alone.
    return values.get(key, values.get(question.kind) if key in calibration.questions else None)
