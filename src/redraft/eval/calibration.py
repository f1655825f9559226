"""Calibration by labelled rows: fitted on some states, checked on the others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redraft.core.calibration import Calibration
from redraft.core.engine import Engine
from redraft.core.errors import InputError
from redraft.core.questions import DecideOptions, Question
from redraft.decide.calibration import key_of, tempered
from redraft.decide.fit import fit
from redraft.decide.measures import Columns, Outcome, accuracy, summary
from redraft.decide.rows import Row
from redraft.eval.decisions import ask, outcomes, state_numbers

FIT_SHARE = 0.5
LEAST_STATES = 20


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A calibration and what it was checked on.

    Attributes:
        calibration: with its figures in `measured`.
        before: outcomes of the rows that it was not fitted on, as they were read.
        after: the same, calibrated.
        questions: what its temperatures and thresholds mean: a name, a temperature, how many rows it was fitted on
            and how many of these were answered wrongly, a threshold, and what comes through that in the rows that it
            was not fitted on.
    """

    calibration: Calibration
    before: tuple[Outcome, ...]
    after: tuple[Outcome, ...]
    questions: tuple[dict[str, Any], ...]


def calibrate(
    engine: Engine,
    rows: Sequence[Row],
    options: DecideOptions,
    *,
    target: float | None = None,
    seed: int = 0,
    fit_share: float = FIT_SHARE,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibrated:
    """Asks labelled rows, fits temperatures and thresholds on some of the states, and measures both on the others.

    Args:
        engine: the model.
        rows: labelled rows.
        options: how they are asked; the calibration holds for these alone.
        target: the accuracy wanted of what is answered; None: no thresholds.
        seed: which states are fitted on.
        fit_share: how many of them.
        on_progress: called with how many rows are asked, of how many.

    Raises:
        InputError: too few states, or no question that could be asked.
    """
    fitted_states(rows, seed=seed, fit_share=fit_share)
    fit([], target=target, bound_to={})
    asked = ask(engine, rows, options, on_progress)
    found = outcomes(rows, asked, raw=True)
    return calibrated_on(rows, found, asked.decisions[0].found_with, target=target, seed=seed, fit_share=fit_share)


def calibrated_on(
    rows: Sequence[Row],
    found: Sequence[Outcome],
    bound_to: Mapping[str, Any],
    *,
    target: float | None = None,
    seed: int = 0,
    fit_share: float = FIT_SHARE,
) -> Calibrated:
    """The same, of rows that have been asked: `found` is what came of them, as it was read.

    Raises:
        InputError: as `calibrate`.
    """
    fitted_on = fitted_states(rows, seed=seed, fit_share=fit_share)
    fitting = [each for each in found if each.state in fitted_on]
    before = tuple(each for each in found if each.state not in fitted_on)
    calibration = fit(fitting, target=target, bound_to=bound_to)
    if not calibration.temperatures:
        raise InputError("too few answers to fit anything on: a kind of question needs 10, a question of its own 30")
    after = tuple(tempered_by(calibration, each) for each in before)
    measured = {
        "fitted_on": {"states": len(fitted_on), "answers": len(fitting)},
        "checked_on": {"states": len(set(state_numbers(rows))) - len(fitted_on), "answers": len(before)},
        "seed": seed,
        "target": target,
        "before": summary(Columns.of(before)),
        "after": summary(Columns.of(after)),
    }
    return Calibrated(
        calibration=replace(calibration, measured=measured),
        before=before,
        after=after,
        questions=tuple(_of_questions(rows, calibration, fitting, after)),
    )


def fitted_states(rows: Sequence[Row], *, seed: int, fit_share: float) -> set[int]:
    """The numbers of the states that are fitted on: a function of their text and the seed, not of their order.

    Raises:
        InputError: too few, or a share that leaves none on either side.
    """
    states = dict(zip(state_numbers(rows), rows, strict=True))
    if len(states) < LEAST_STATES:
        raise InputError(f"too few rows to calibrate with: {len(states)} states, {LEAST_STATES} at least are needed")
    if not 0.1 <= fit_share <= 0.9:
        raise InputError(f"the share of states that is fitted on must be from 0.1 to 0.9, got {fit_share}")

    def place(number: int) -> bytes:
        state = states[number].state
        return hashlib.sha256(f"{seed}\n{state.text}\n{list(state.messages)}".encode()).digest()

    return set(sorted(states, key=place)[: round(len(states) * fit_share)])


def tempered_by(calibration: Calibration, found: Outcome) -> Outcome:
    """An outcome at its question's temperature, or its kind's."""
    temperature = calibration.temperatures.get(found.key, calibration.temperatures.get(found.kind))
    if temperature is None or not found.probabilities:
        return found
    return replace(found, probabilities=tempered(found.probabilities, temperature))


def _of_questions(
    rows: Sequence[Row], calibration: Calibration, fitting: Sequence[Outcome], after: Sequence[Outcome]
) -> list[dict[str, Any]]:
    """A line for each question that was labelled often enough, and for each kind that the others have."""
    asked: dict[str, Question] = {key_of(question): question for row in rows for question in row.questions}
    kinds = {key: asked[key].name if key in asked else f"any {key}" for key in calibration.temperatures}
    lines = []
    for key, name in kinds.items():
        own = [
            each for each in after if each.key == key or (each.kind == key and each.key not in calibration.temperatures)
        ]
        if not own:
            continue
        threshold = calibration.thresholds.get(key)
        # Where none of the options was right, nothing can be told about a temperature.
        told = [each for each in fitting if key in (each.key, each.kind) and each.probabilities and any(each.shares)]
        line: dict[str, Any] = {
            "question": name,
            "temperature": calibration.temperatures[key],
            "answers": len(own),
            "fitted_on": len(told),
            "fitted_wrong": sum(not each.is_right for each in told),
        }
        if threshold is not None:
            columns = Columns.of(own)
            through = [each for each in own if max(each.probabilities, default=0.0) >= threshold]
            line["threshold"] = None if math.isinf(threshold) else threshold
            line["coverage"] = len(through) / len(columns)
            line["accuracy"] = accuracy(Columns.of(through)) if through else None
        lines.append(line)
    return lines
