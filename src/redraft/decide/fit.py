"""Fitting a calibration: the temperature that makes labelled rows likeliest, and the confidence that is enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redraft.core.calibration import Calibration
from redraft.core.errors import OptionError
from redraft.decide.calibration import FLOOR, tempered
from redraft.decide.measures import Outcome

# From as many rows on, a question has a temperature of its own; below, one of its kind's rows; below that, none.
ROWS_OF_A_QUESTION = 30
ROWS_OF_A_KIND = 10
COLDEST, HOTTEST = 0.1, 10.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit(outcomes: Sequence[Outcome], *, target: float | None = None, bound_to: Mapping[str, Any]) -> Calibration:
    """A calibration by labelled rows.

    Args:
        outcomes: raw probabilities and what was right; other rows than those that will judge it.
        target: the accuracy wanted of what is answered; None: no thresholds.
        bound_to: what it holds for.

    Raises:
        OptionError: a target that is no accuracy.
    """
    if target is not None and not 0 < target <= 1:
        raise OptionError(f"target must be an accuracy above 0 and up to 1, got {target}")
    known = [outcome for outcome in outcomes if outcome.probabilities]
    groups = {**_grouped(known, "kind", ROWS_OF_A_KIND), **_grouped(known, "key", ROWS_OF_A_QUESTION)}
    temperatures = {name: temperature(group) for name, group in groups.items()}
    thresholds = {} if target is None else {n: threshold(g, temperatures[n], target) for n, g in groups.items()}
    questions = tuple(sorted({outcome.key for outcome in known}))
    return Calibration(temperatures=temperatures, thresholds=thresholds, questions=questions, bound_to=bound_to)


def temperature(outcomes: Sequence[Outcome]) -> float:
    """The temperature, 0.1 to 10, at which what was right is likeliest; 1 where no option was right anywhere.

    Beside N rows one more is thought of, in which any option may have been right, spread over them all: where none was
    wrong, that is how sure N rows can make one. In the temperature's inverse the likelihood is concave, so that a
    golden-section search finds its one top.

    Source: Platt 1999, "Probabilistic outputs for support vector machines", section 2.2, for the smoothed targets.
    """
    logs, shares = _columns([outcome for outcome in outcomes if any(outcome.shares)])
    if not len(logs):
        return 1.0
    offered = np.isfinite(logs)
    more = 1 / (len(logs) + 1)
    shares = (1 - more) * shares + more * offered / offered.sum(axis=1, keepdims=True)

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        scaled = scaled - np.max(scaled, axis=1, keepdims=True)
        total = np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -float(np.where(shares > 0, shares * (scaled - total), 0.0).sum())

    low, high = math.log(COLDEST), math.log(HOTTEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-6:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)


def threshold(outcomes: Sequence[Outcome], temperature: float, target: float) -> float:
    """The least confidence from which on answers were as accurate as is wanted; infinite where they never were."""
    judged = [(max(tempered(outcome.probabilities, temperature)), outcome.is_right) for outcome in outcomes]
    confidence = np.array([each for each, _ in judged])
    right = np.array([is_right for _, is_right in judged], dtype=np.float64)
    order = np.argsort(-confidence, kind="stable")
    confidence, accuracy = confidence[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # Those of one confidence are in or out together.
    ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))
    enough = [float(confidence[end]) for end in ends if accuracy[end] >= target - 1e-12]
    return min(enough, default=math.inf)


def _grouped(outcomes: Sequence[Outcome], by: str, least: int) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(getattr(outcome, by), []).append(outcome)
    return {name: group for name, group in groups.items() if len(group) >= least}


def _columns(outcomes: Sequence[Outcome]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[N, K] logs of probabilities and shares; questions of fewer options are filled up with nothing."""
    most = max((len(outcome.probabilities) for outcome in outcomes), default=0)
    logs = np.full((len(outcomes), most), -np.inf)
    shares = np.zeros((len(outcomes), most))
    for row, outcome in enumerate(outcomes):
        count = len(outcome.probabilities)
        logs[row, :count] = np.log(np.maximum(outcome.probabilities, FLOOR))
        shares[row, :count] = outcome.shares
    return logs, shares
