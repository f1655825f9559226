"""Ways of answering the same questions beside each other: joint and apart, canvas and causal mode, and written out."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from redraft.core.engine import Engine
from redraft.core.errors import InputError
from redraft.core.questions import DecideOptions, Question
from redraft.core.results import Generation
from redraft.decide import prompts
from redraft.decide.calibration import key_of
from redraft.decide.intervals import paired
from redraft.decide.labels import listed
from redraft.decide.measures import Columns, Measure, Outcome, accuracy, brier
from redraft.decide.rows import Row
from redraft.decide.state import State
from redraft.eval.calibration import calibrated_on
from redraft.eval.decisions import ask, costs, measured, outcomes, state_numbers
from redraft.eval.text import fold

# A label and a word behind it are long enough; options by their own text may be longer.
_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of finding out.

    Attributes:
        name: what it is called.
        changes: of the options; None: the answer is written out, and read.
    """

    name: str
    changes: Mapping[str, Any] | None = field(default_factory=dict)


JOINT = Way(name="canvas, joint", changes={"joint": True, "reader": "canvas"})
CANVAS = Way(name="canvas", changes={"joint": False, "reader": "canvas"})
CANVAS_4 = Way(name="canvas, 4 draws", changes={"joint": False, "reader": "canvas", "draws": 4})
CAUSAL = Way(name="causal", changes={"joint": False, "reader": "causal"})
WRITTEN = Way(name="written out", changes=None)
WAYS = (JOINT, CANVAS, CANVAS_4, CAUSAL, WRITTEN)
# By themselves: without looking again, or the other reader.
_ALONE: Mapping[str, Any] = {"gate_nats": None, "second_reader": False, "agree": False, "calibration": None}


def compare(
    engine: Engine,
    rows: Sequence[Row],
    options: DecideOptions,
    *,
    ways: Sequence[Way] = WAYS,
    on_progress: Callable[[str, int, int], None] = lambda now, done, total: None,
) -> dict[str, Any]:
    """The same rows, asked in several ways, each by itself: nothing is looked at twice.

    Args:
        engine: the model.
        rows: labelled rows.
        options: what all ways have in common.
        ways: which; where no row has two questions, the joint one is left out.
        on_progress: called with what runs, how many rows are done, of how many.

    Returns:
        `ways`: measures and costs of each, and, as `calibration`, what a calibration on half of the states does on the
        other half; one that writes its answer out has no probabilities. `pairs`: each two
        beside each other, with intervals by state.
    """
    if all(len(row.questions) < 2 for row in rows):
        ways = [way for way in ways if not (way.changes or {}).get("joint")]
    found: dict[str, list[Outcome]] = {}
    result: dict[str, Any] = {}
    for turn, way in enumerate(ways):

        def move(done: int, total: int, name: str = way.name, turn: int = turn) -> None:
            on_progress(name, turn * total + done, len(ways) * total)

        if way.changes is None:
            found[way.name], spent = _written(engine, rows, options, move)
            measures = measured(found[way.name])
            kept = ("count", "states", "refused", "accuracy", "accuracy_interval")
            result[way.name] = {name: measures[name] for name in kept} | {"costs": spent}
        else:
            asked = ask(engine, rows, options.with_changes(**_ALONE, **way.changes), move)
            found[way.name] = outcomes(rows, asked, raw=True)
            result[way.name] = measured(found[way.name]) | {"costs": costs(rows, asked)}
            with contextlib.suppress(InputError):
                # Too few rows to calibrate with are enough to compare.
                halves = calibrated_on(rows, found[way.name], asked.decisions[0].found_with)
                result[way.name]["calibration"] = halves.calibration.measured
    return {"ways": result, "pairs": _pairs(ways, found)}


def _pairs(ways: Sequence[Way], found: Mapping[str, list[Outcome]]) -> list[dict[str, Any]]:
    columns = {name: Columns.of(outcomes) for name, outcomes in found.items()}
    pairs = []
    for place, one in enumerate(ways):
        for other in ways[place + 1 :]:
            measures: dict[str, Measure] = {"accuracy": accuracy}
            if one.changes is not None and other.changes is not None:
                measures["brier"] = brier
            pair: dict[str, Any] = {"one": one.name, "other": other.name}
            for name, measure in measures.items():
                beside = paired(columns[one.name], columns[other.name], measure)
                difference = beside.difference
                pair[name] = {"difference": difference.value, "low": difference.low, "high": difference.high}
                pair |= {"better": beside.better, "worse": beside.worse}
            pairs.append(pair)
    return pairs


def _written(
    engine: Engine, rows: Sequence[Row], options: DecideOptions, on_progress: Callable[[int, int], None]
) -> tuple[list[Outcome], dict[str, Any]]:
    """Each question by itself, its answer written out and read."""
    found: list[Outcome] = []
    seconds: list[float] = []
    started = time.perf_counter()
    for number, (state, row) in enumerate(zip(state_numbers(rows), rows, strict=True)):
        on_progress(number, len(rows))
        for question, shares in zip(row.questions, row.shares, strict=True):
            before = time.perf_counter()
            option = written_answer(engine, row.state, question, options, seed=number)
            seconds.append(time.perf_counter() - before)
            count = len(question.options)
            sure = () if option is None else tuple(float(place == option) for place in range(count))
            found.append(
                Outcome(state=state, key=key_of(question), kind=question.kind, probabilities=sure, shares=shares)
            )
    on_progress(len(rows), len(rows))
    return found, {
        "p50_s": float(np.quantile(seconds, 0.5)),
        "p95_s": float(np.quantile(seconds, 0.95)),
        "decisions_per_second": len(seconds) / (time.perf_counter() - started),
    }


def written_answer(
    engine: Engine, state: State, question: Question, options: DecideOptions, *, seed: int
) -> int | None:
    """The option that a whole reply names; None where it names none."""
    if question.form == "reply":
        messages = state.messages or ({"role": "user", "content": state.text},)
        return _begun(question, engine.generate(list(messages), seed=seed))
    put = listed(question, prompts.label_kinds(question)[0])
    messages = prompts.messages(state, [put], joint=False, behind=options.state == "behind")
    reply = engine.generate(messages, seed=seed, max_new_tokens=_TOKENS)
    return named(put, reply.text)


def named(put: prompts.Put, text: str) -> int | None:
    """The option that a text names: by its label, alone or with a mark behind it, or by its own text."""
    said = fold(text)
    for option, label in enumerate(put.texts):
        if put.labels != "text" and re.match(rf"\W*{re.escape(fold(label))}\W*($|[.:)\n])", said):
            return option
    for option, value in enumerate(put.question.options):
        if said.strip(" .\"'") == fold(prompts.text_of(put.question, value)):
            return option
    return None


def _begun(question: Question, reply: Generation) -> int | None:
    """The option that a reply begins with; of several, the longest."""
    begins = [(option.reply or option.text, place) for place, option in enumerate(question.options)]
    fitting = [(len(text), place) for text, place in begins if reply.raw.startswith(text)]
    return max(fitting)[1] if fitting else None
