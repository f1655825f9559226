"""Measures beside figures worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from redraft.core.decisions import Answer, Refusal
from redraft.core.questions import predicate
from redraft.decide import measures
from redraft.decide.contrasts import Flips, auroc, flips
from redraft.decide.intervals import interval, paired
from redraft.decide.measures import Columns, Outcome, accuracy, outcome


def made(*rows: tuple[float, bool], states: list[int] | None = None) -> Columns:
    """Yes-or-no outcomes: (probability of what is likelier, whether that is right)."""
    shares = {True: (1.0, 0.0), False: (0.0, 1.0)}
    found = [
        Outcome(
            state=n if states is None else states[n], key="k", kind="predicate", probabilities=(p, 1 - p),
            shares=shares[right],
        )
        for n, (p, right) in enumerate(rows)
    ]  # fmt: skip
    return Columns.of(found)


def of(probabilities: tuple[float, ...], shares: tuple[float, ...]) -> Columns:
    return Columns.of([Outcome(state=0, key="k", kind="choice", probabilities=probabilities, shares=shares)])


def test_accuracy_counts_a_tie_by_its_first():
    assert accuracy(made((0.9, True), (0.8, False), (0.7, True), (0.6, True))) == 0.75
    assert accuracy(of((0.5, 0.5), (1.0, 0.0))) == 1
    assert accuracy(of((0.5, 0.5), (0.0, 1.0))) == 0
    # Nobody's answer is right where none of the options is, or where the question was refused.
    assert accuracy(of((0.9, 0.1), (0.0, 0.0))) == 0
    assert accuracy(of((), (1.0, 0.0))) == 0


def test_brier_and_nll():
    assert measures.brier(of((0.7, 0.2, 0.1), (0.0, 1.0, 0.0))) == pytest.approx(0.49 + 0.64 + 0.01)
    assert measures.nll(of((0.7, 0.2, 0.1), (0.0, 1.0, 0.0))) == pytest.approx(-math.log(0.2))
    assert measures.nll(of((1.0, 0.0), (0.0, 1.0))) == pytest.approx(15 * math.log(10))
    soft = of((0.5, 0.5), (0.8, 0.2))
    assert measures.brier(soft) == pytest.approx(0.18)
    assert measures.nll(soft) == pytest.approx(math.log(2))
    # None of them: squared distance from nothing, and no likelihood.
    none = of((0.6, 0.4), (0.0, 0.0))
    assert measures.brier(none) == pytest.approx(0.52)
    assert math.isnan(measures.nll(none))


def test_ece_by_bins():
    columns = made((0.95, True), (0.91, False), (0.62, True), (0.68, True), (1.0, True))
    # (.9, 1): three rows, mean confidence .9533, two of them right; (.6, .7): two, .65, both right.
    assert measures.ece(columns) == pytest.approx((abs(2 - 2.86) + abs(2 - 1.3)) / 5)
    # In halves all five are one bin: 4 right, 4.16 expected.
    assert measures.ece(columns, 2) == pytest.approx(0.16 / 5)
    bins = measures.reliability(columns)
    assert [each["count"] for each in bins] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 3]
    assert bins[6]["confidence"] == pytest.approx(0.65)
    assert bins[6]["accuracy"] == 1
    assert bins[0] == {"from": 0.0, "to": 0.1, "count": 0, "confidence": None, "accuracy": None}


def test_the_floor_of_ece_is_what_luck_alone_makes():
    assert measures.ece_floor(made(*[(1.0, True)] * 20)) == 0
    few, many = made(*[(0.7, True)] * 20), made(*[(0.7, True)] * 2000)
    # The mean distance of a mean of n draws from .7 is sqrt(2 / pi) sqrt(.21 / n).
    assert measures.ece_floor(few) == pytest.approx(math.sqrt(0.42 / math.pi / 20), rel=0.15)
    assert measures.ece_floor(many) == pytest.approx(math.sqrt(0.42 / math.pi / 2000), rel=0.15)
    assert measures.ece_floor(few) == measures.ece_floor(few)


def test_gates_and_risk_over_coverage():
    columns = made((0.99, True), (0.95, False), (0.9, True), (0.85, True), (0.6, False))
    assert measures.gate(columns, 0.8) == {"gate": 0.8, "coverage": 0.8, "wrong": 1}
    assert measures.gate(columns, 0.9) == {"gate": 0.9, "coverage": 0.6, "wrong": 1}
    # Of the first 1, 2, ... rows 0, 1/2, 1/3, 1/4, 2/5 are wrong.
    assert measures.aurc(columns) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert measures.coverage_at(columns, 0.05) == 0.2
    assert measures.coverage_at(columns, 0.25) == 0.8
    assert measures.coverage_at(columns, 0.4) == 1
    assert measures.coverage_at(made((0.9, False), (0.8, False)), 0.1) == 0


def test_rows_of_one_confidence_have_no_order():
    one = made((0.9, False), (0.9, True), (0.9, True), (0.9, True))
    other = made((0.9, True), (0.9, True), (0.9, True), (0.9, False))
    assert measures.aurc(one) == pytest.approx(measures.aurc(other)) == pytest.approx(0.25)
    assert measures.coverage_at(one, 0.2) == measures.coverage_at(other, 0.2) == 0


def test_a_refused_question_stays_in_the_denominator():
    rows = [
        Outcome(state=n, key="k", kind="choice", probabilities=p, shares=(1.0, 0.0))
        for n, p in enumerate([(0.9, 0.1), ()])
    ]
    found = measures.summary(Columns.of(rows))
    assert (found["count"], found["refused"], found["accuracy"]) == (2, 1, 0.5)
    assert found["brier"] == pytest.approx(0.02)
    assert found["gates"][0] == {"gate": 0.8, "coverage": 0.5, "wrong": 0}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert measures.summary(of((0.6, 0.4), (0.0, 0.0)))["nll"] is None


def test_an_answer_that_was_withheld_counts_as_it_would_have_been():
    question = predicate("Is it?")
    answer = Answer(question=question, probabilities=(0.6, 0.4), raw=(0.9, 0.1), label_mass=1.0)
    withheld = Refusal(question=question, name=None, code="abstained", reason="", answer=answer)
    invalid = Refusal(question=question, name=None, code="invalid_question", reason="")
    assert outcome(0, "k", "predicate", answer, (1, 0), raw=True).probabilities == (0.9, 0.1)
    assert outcome(0, "k", "predicate", withheld, (1, 0), raw=False).probabilities == (0.6, 0.4)
    assert outcome(0, "k", "predicate", invalid, (1, 0), raw=False).probabilities == ()


def test_intervals_draw_states_with_all_their_questions():
    sure = [(0.9, True)] * 30 + [(0.9, False)] * 10
    apart = interval(made(*sure), accuracy)
    assert apart.value == 0.75
    # A binomial's: .75 +- 1.96 sqrt(.75 * .25 / 40).
    assert (apart.low, apart.high) == pytest.approx((0.616, 0.884), abs=0.03)
    together = interval(made(*sure, states=[n // 10 for n in range(40)]), accuracy)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    assert interval(made(*sure), accuracy) == apart
    assert interval(made(*sure), accuracy, seed=1) != apart


def test_two_ways_are_compared_state_by_state():
    states = [n // 2 for n in range(8)]
    one = made(*[(0.9, True)] * 6, (0.9, False), (0.9, True), states=states)
    other = made((0.9, True), (0.9, False), (0.9, False), (0.9, False), *[(0.9, True)] * 4, states=states)
    found = paired(one, other)
    assert found.difference.value == pytest.approx(2 / 8)
    assert (found.better, found.worse) == (2, 1)
    assert found.difference.low <= 0 < found.difference.high
    same = paired(one, one)
    assert (same.difference.low, same.difference.value, same.difference.high) == (0, 0, 0)
    assert paired(one, one, measures.brier).difference.value == 0
    assert np.isnan(interval(of((0.6, 0.4), (0.0, 0.0)), measures.nll).low)


def test_flips_are_of_the_likeliest_option():
    def answered(*several: tuple[float, ...]) -> list[Outcome]:
        return [Outcome(state=0, key="k", kind="choice", probabilities=p, shares=(1.0, 0.0)) for p in several]

    one = answered((0.9, 0.1), (0.6, 0.4), (0.5, 0.5), ())
    other = answered((0.7, 0.3), (0.3, 0.7), (0.5, 0.5), (1.0, 0.0))
    found = flips(one, other)
    assert (found.count, found.flipped) == (3, 1)
    assert (found.mean_change, found.largest_change) == (pytest.approx(0.5 / 3), pytest.approx(0.3))
    assert flips([], []) == Flips(count=0, flipped=0, mean_change=0.0, largest_change=0.0)


def test_auroc_counts_pairs():
    assert auroc([0.9, 0.8], [0.1, 0.2]) == 1
    assert auroc([0.9, 0.3, 0.5], [0.5, 0.1]) == pytest.approx((2 + 1 + 1.5) / 6)
    assert auroc([0.5] * 3, [0.5]) == 0.5
    assert math.isnan(auroc([], [0.5]))
