"""Calibration: temperatures and thresholds by labelled rows, what they hold for, and the file they stand in."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from deciding import known
from redraft.core.calibration import Calibration
from redraft.core.decisions import Answer
from redraft.core.errors import DataError, OptionError
from redraft.core.questions import DecideOptions, Option, Question, choice, score
from redraft.decide import calibration_file
from redraft.decide.calibration import bound_to, calibrated, check, key_of, tempered, threshold_of
from redraft.decide.fit import fit, temperature, threshold
from redraft.decide.measures import Outcome

QUESTION = choice("Which?", ["a", "b", "c"])


def outcomes(count: int, *, by: float, key: str = "k", kind: str = "choice", seed: int = 0) -> list[Outcome]:
    """Rows whose right answers are drawn at temperature 1, and whose probabilities are shown at 1 / `by`."""
    generator = np.random.default_rng(seed)
    found = []
    for state in range(count):
        true = tempered(generator.dirichlet([0.6] * 3), 1.0)
        right = generator.choice(3, p=np.array(true) / sum(true))
        shares = tuple(float(place == right) for place in range(3))
        found.append(Outcome(state=state, key=key, kind=kind, probabilities=tempered(true, 1 / by), shares=shares))
    return found


def loss(found: list[Outcome], at: float) -> float:
    return -sum(math.log(tempered(o.probabilities, at)[o.shares.index(1.0)]) for o in found)


def rows(*judged: tuple[float, bool]) -> list[Outcome]:
    shares = {True: (1.0, 0.0), False: (0.0, 1.0)}
    return [
        Outcome(state=n, key="k", kind="predicate", probabilities=(p, 1 - p), shares=shares[right])
        for n, (p, right) in enumerate(judged)
    ]


def test_a_key_is_of_what_the_model_sees():
    assert key_of(QUESTION) == key_of(choice("Which?", ["a", "b", "c"], name="other"))
    others = [
        choice("Which one?", ["a", "b", "c"]),
        choice("Which?", ["a", "c", "b"]),
        choice("Which?", {"a": "x", "b": None, "c": None}),
        choice("Which?", ["a", "b", "c"], form="text"),
        score("Which?", ["a", "b", "c"]),
        Question(kind="choice", instructions="", options=QUESTION.options, form="reply"),
        Question(
            kind="choice", instructions="", options=(Option(value="a", reply="!"), *QUESTION.options[1:]), form="reply"
        ),
    ]
    assert len({key_of(QUESTION), *map(key_of, others)}) == 8
    assert key_of(choice("?", [True, "b"])) != key_of(choice("?", ["true", "b"]))


def test_a_temperature_bends_the_logarithms():
    assert tempered((0.9, 0.1), 2.0) == pytest.approx((0.75, 0.25))  # sqrt(9) to 1
    assert tempered((0.8, 0.2), 0.5) == pytest.approx((16 / 17, 1 / 17))
    assert tempered((0.3, 0.7), 1.0) == pytest.approx((0.3, 0.7))
    assert tempered((1.0, 0.0), 2.0) == pytest.approx((1 / (1 + 1e-6), 1e-6 / (1 + 1e-6)))


@pytest.mark.parametrize("by", [0.5, 1.0, 3.0])
def test_the_temperature_found_is_the_likeliest(by):
    found = outcomes(400, by=by)
    at = temperature(found)
    assert at == pytest.approx(by, rel=0.25)
    # A plain grid knows nothing better.
    assert loss(found, at) <= min(loss(found, 0.1 * 1.1**step) for step in range(49)) + 1e-6


def test_a_temperature_keeps_within_its_bounds():
    assert temperature(rows(*[(0.51, True)] * 20)) == pytest.approx(0.1, rel=1e-4)
    assert temperature(rows(*[(0.7, False)] * 20)) == pytest.approx(10, rel=1e-4)
    nothing = [Outcome(state=0, key="k", kind="choice", probabilities=(0.5, 0.5), shares=(0.0, 0.0))]
    assert temperature(nothing) == 1
    assert temperature(rows((1.0, False), (0.9, True), (0.8, True))) < 10


def test_where_nothing_was_wrong_the_rows_make_one_as_sure_as_so_many_can():
    # Beside 20 rows one more, of which nobody knows what was right: 20.5 to 0.5.
    sure = tempered((0.7, 0.3), temperature(rows(*[(0.7, True)] * 20)))
    assert sure == pytest.approx((20.5 / 21, 0.5 / 21), rel=1e-4)


def test_soft_labels_count_by_their_shares():
    # At the temperature that makes .9 to .1 what was shared out, by a thousand rows and one that nobody knows.
    soft = [Outcome(state=0, key="k", kind="choice", probabilities=(0.9, 0.1), shares=(0.75, 0.25))] * 1000
    assert temperature(soft) == pytest.approx(2, rel=2e-3)


def test_a_threshold_is_the_least_confidence_that_is_enough():
    judged = rows((0.99, True), (0.95, True), (0.9, False), (0.8, True), (0.6, False))
    assert threshold(judged, 1.0, 0.75) == pytest.approx(0.8)
    assert threshold(judged, 1.0, 0.6) == pytest.approx(0.6)
    assert threshold(judged, 1.0, 1.0) == pytest.approx(0.95)
    assert threshold(judged, 2.0, 1.0) == pytest.approx(tempered((0.95, 0.05), 2.0)[0])
    assert threshold(rows((0.9, False), (0.8, False)), 1.0, 0.5) == math.inf
    # Of one confidence all or none.
    assert threshold(rows((0.9, True), (0.9, False), (0.8, True), (0.8, True)), 1.0, 0.75) == pytest.approx(0.8)
    assert threshold(rows((0.9, True), (0.9, False)), 1.0, 0.75) == math.inf


def test_many_rows_are_a_question_s_own_and_few_its_kind_s():
    many, few = outcomes(40, by=3.0, key="many"), outcomes(29, by=0.5, key="few", seed=1)
    odd = outcomes(9, by=1.0, key="odd", kind="score", seed=2)
    found = fit([*many, *few, *odd], target=0.5, bound_to={"x": 1})
    assert set(found.temperatures) == {"many", "choice"} == set(found.thresholds)
    assert found.temperatures["many"] == temperature(many)
    assert found.temperatures["choice"] == temperature([*many, *few])
    assert found.bound_to == {"x": 1}
    assert fit(many, bound_to={}).thresholds == {}
    with pytest.raises(OptionError, match="target must be an accuracy above 0 and up to 1, got 1.5"):
        fit(many, target=1.5, bound_to={})


def test_an_answer_is_calibrated_by_its_question_or_its_kind():
    answer = Answer(question=QUESTION, probabilities=(0.8, 0.1, 0.1), raw=(0.8, 0.1, 0.1), label_mass=1.0)
    asked = (key_of(QUESTION),)
    own = Calibration(temperatures={key_of(QUESTION): 2.0, "choice": 3.0}, thresholds={"choice": 0.7}, questions=asked)
    assert calibrated(answer, own).probabilities == pytest.approx(tempered(answer.raw, 2.0))
    assert calibrated(answer, own).raw == answer.raw
    kind = Calibration(temperatures={"choice": 3.0}, questions=asked)
    assert calibrated(answer, kind).probabilities == pytest.approx(tempered(answer.raw, 3.0))
    assert calibrated(answer, kind).calibrated
    assert calibrated(answer, Calibration(temperatures={"score": 3.0})) == answer
    # Rows of other choices say nothing of this one.
    others = Calibration(temperatures={"choice": 3.0}, thresholds={"choice": 0.7}, questions=("another",))
    assert calibrated(answer, others) == answer
    assert threshold_of(others, QUESTION) is None
    assert (threshold_of(own, QUESTION), threshold_of(kind, QUESTION)) == (0.7, None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"draws": 2}, "draws 1, here it is 2"),
        ({"reader": "canvas"}, "reader 'auto', here it is 'canvas'"),
        ({"joint": True}, "joint False, here it is True"),
        ({"state": "behind"}, "state 'before', here it is 'behind'"),
        ({"steps": 2}, "steps 1, here it is 2"),
        ({"gate_nats": None}, "gate_nats 0.1, here it is None"),
    ],
)
def test_a_calibration_of_other_options_is_refused(changes, named):
    fitted = Calibration(temperatures={}, bound_to=bound_to(known(), DecideOptions()))
    check(fitted, known(), DecideOptions(seed=5, least_mass=0.5, state="before"))
    with pytest.raises(
        OptionError, match=f"^calibration is of something else: it was found with {named}; calibrate again"
    ):
        check(fitted, known(), DecideOptions(**changes))


def test_a_calibration_of_another_model_or_wording_is_refused():
    options = DecideOptions()
    bound = bound_to(known(), options)
    for changed, named in (
        ({**bound, "form": "redraft-0"}, "form 'redraft-0', here it is 'redraft-1'"),
        ({**bound, "model": {**known().identity, "dtype": "bfloat16"}}, "model.dtype 'bfloat16', here it is 'float32'"),
        ({}, "draws None, here it is 1"),
        ({**bound, "more": 1}, "more 1, here it is None"),
        ({**bound, "model": "mini"}, "model 'mini', here it is {"),
    ):
        with pytest.raises(OptionError) as raised:
            check(Calibration(temperatures={}, bound_to=changed), known(), options)
        assert named in str(raised.value)


def test_a_file_says_it_all_again(tmp_path):
    bound = bound_to(known(), DecideOptions())
    fitted = fit(outcomes(40, by=2.0), target=0.9, bound_to=bound)
    never = Calibration(
        temperatures=fitted.temperatures,
        thresholds={"choice": math.inf, "score": 0.5},
        bound_to=bound,
        measured={"ece": 0.1},
    )
    calibration_file.save(never, tmp_path / "c.json")
    assert calibration_file.read(tmp_path / "c.json") == never
    assert json.loads((tmp_path / "c.json").read_text())["thresholds"] == {"choice": None, "score": 0.5}
    check(calibration_file.read(tmp_path / "c.json"), known(), DecideOptions())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "calibration must be an object, got []"),
        ({}, "calibration: version must be 1, got None: calibrate again"),
        ({"version": True}, "calibration: version must be 1, got True: calibrate again"),
        ({"version": 2}, "calibration: version must be 1, got 2: calibrate again"),
        ({"version": 1, "temperature": 2}, "calibration: 'temperature' is no field of it; there is "),
        ({"version": 1, "temperatures": [1]}, "calibration: temperatures must be an object, got [1]"),
        ({"version": 1, "temperatures": {"k": 0}}, "temperatures: 'k' must be a number from 0.01 to 100, got 0"),
        ({"version": 1, "temperatures": {"k": "1"}}, "temperatures: 'k' must be a number from 0.01 to 100, got '1'"),
        ({"version": 1, "temperatures": {"k": True}}, "temperatures: 'k' must be a number from 0.01 to 100, got True"),
        ({"version": 1, "thresholds": {"k": 2}}, "thresholds: 'k' must be a probability or null, got 2"),
        ({"version": 1, "bound_to": "mini"}, "calibration: bound_to must be an object, got 'mini'"),
    ],
)
def test_a_hostile_file_is_one_line(tmp_path, value, said):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError) as raised:
        calibration_file.read(path)
    assert said in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_file_or_no_json_is_one_line(tmp_path):
    with pytest.raises(DataError, match="c.json: cannot be read: No such file"):
        calibration_file.read(tmp_path / "c.json")
    for content in (b"{", b'{"version": 1, "version": 1}', b"\xff", b'{"version": NaN}', b"[" * 100_000):
        (tmp_path / "c.json").write_bytes(content)
        with pytest.raises(DataError, match="c.json: is no JSON"):
            calibration_file.read(tmp_path / "c.json")
    with pytest.raises(DataError, match="cannot be written"):
        calibration_file.save(Calibration(temperatures={}), tmp_path / "none" / "c.json")
