"""`redraft serve --calibration`: answers over real HTTP at the temperatures of a file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import redraft
from redraft.cli import main
from redraft.core.calibration import Calibration
from redraft.core.questions import DecideOptions, choice
from redraft.decide import calibration_file
from redraft.decide.calibration import bound_to, identity_of, key_of, tempered
from redraft.engine.deciding import known_of
from servers import ask, serving

QUESTION = choice("Which service?", ["Spotify", "radio"], name="service")
ASKED = {
    "model": "mini",
    "input": "play jazz on Spotify",
    "questions": [
        {"type": "choice", "name": "service", "instructions": "Which service?",
         "choices": [{"value": "Spotify"}, {"value": "radio"}]},
        {"type": "choice", "name": "other", "instructions": "Which?", "choices": [{"value": "a"}, {"value": "b"}]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    engine, options = redraft.load("mini", dtype="float32", threads=1), DecideOptions()
    known = known_of(engine.admission, identity_of(engine.info), options)
    key = key_of(QUESTION)
    return Calibration(temperatures={key: 3.0}, questions=(key,), bound_to=bound_to(known, options))


def test_answers_are_calibrated_where_the_options_are_those_of_the_file(calibration, tmp_path):
    calibration_file.save(calibration, tmp_path / "cal.json")
    with serving("--threads", "1", "--calibration", str(tmp_path / "cal.json")) as (_, port):
        told = json.loads(ask(port, "POST", "/v1/decisions", ASKED)[1])
        service, other = told["redraft"]["answers"]
        raw = [share["raw"] for share in service["probabilities"]]
        assert service["calibrated"]
        assert told["answers"][0]["probabilities"][0]["probability"] == pytest.approx(tempered(raw, 3.0)[0], abs=1e-9)
        assert not other["calibrated"], "rows of other questions say nothing of this one"
        told = json.loads(ask(port, "POST", "/v1/decisions", {**ASKED, "decide": {"draws": 2}})[1])
        assert not told["redraft"]["answers"][0]["calibrated"]


def test_a_calibration_of_another_model_keeps_the_server_from_starting(calibration, tmp_path, capsys):
    other = dict(calibration.bound_to)
    other["model"] = {**other["model"], "fingerprint": "0"}
    calibration_file.save(replace(calibration, bound_to=other), tmp_path / "cal.json")
    arguments = ["serve", "--dtype", "float32", "--threads", "1", "--port", "0", "--no-auth"]
    assert main([*arguments, "--calibration", str(tmp_path / "cal.json")]) == 2
    assert "fingerprint" in capsys.readouterr().err
    (tmp_path / "cal.json").write_text("{")
    assert main([*arguments, "--calibration", str(tmp_path / "cal.json")]) == 2
