"""Benchmarks of two checkouts: turns that alternate, ratios of pairs, and an interval that says what they show."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FAKE = """
import json, pathlib, sys
def main():
    log = pathlib.Path({log!r})
    log.write_text(log.read_text() + {name!r})
    if "--help" in sys.argv:
        print({help!r})
    else:
        print(json.dumps({{"step_s": {step}, "encode_s": 1.0, "argv": sys.argv[1:]}}))
"""


def loaded(name):
    """A script of the benchmarks, whose folder is on no path here."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def turn_about(monkeypatch):
    module = loaded("turn_about")
    # Where the others ask for it.
    monkeypatch.setitem(sys.modules, "turn_about", module)
    return module


@pytest.fixture
def checkout(tmp_path):
    log = tmp_path / "log"
    log.write_text("")

    def write(name, step=1.0, usage=""):
        folder = tmp_path / name / "src" / "redraft"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "cli.py").write_text(FAKE.format(log=str(log), name=name, step=step, help=usage))
        return tmp_path / name

    return write


def test_rounds_alternate_and_ratios_are_of_pairs(turn_about, checkout, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(turn_about, "SOURCE", checkout("n", step=1.5) / "src")
    monkeypatch.setattr(turn_about, "others_share", lambda: 0.0)
    command = ["turn_about", "--before", str(checkout("b")), "--rounds", "3", "--figures", "step_s,encode_s"]
    monkeypatch.setattr(sys, "argv", command)
    turn_about.main()
    found = json.loads(capsys.readouterr().out)
    assert (tmp_path / "log").read_text() == "nbbnnb"
    assert found["step_s"] == {"redraft": 1.5, "before": 1.0, "ratio_to_before": 1.5, "interval_95": [1.5, 1.5]}
    assert found["encode_s"]["ratio_to_before"] == 1
    monkeypatch.setattr(sys, "argv", [*command[:2], str(tmp_path), *command[3:]])
    with pytest.raises(SystemExit, match="no checkout"):
        turn_about.main()


def test_an_interval_holds_the_median_and_narrows(turn_about):
    few = [1 + 0.01 * i for i in range(-5, 6)]
    low, high = turn_about.interval_of_median(few)
    assert 0.95 <= low < 1 < high <= 1.05
    lower, higher = turn_about.interval_of_median(few * 20)
    assert low < lower < higher < high


@pytest.mark.parametrize("usage", ["", "--known-tools  Make calls that nobody declared."])
def test_a_flag_goes_to_servers_that_have_it(turn_about, checkout, usage):
    command = loaded("serving").command_of(checkout("n", usage=usage) / "src")
    assert ("--known-tools" in command) is bool(usage)
