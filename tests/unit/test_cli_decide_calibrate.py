"""`redraft decide calibrate`: what is found, written, shown and used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from decide_commands import ASK, csv_file, refused

from redraft.cli import main


def labelled(name: str = "rows.jsonl", count: int = 60) -> Path:
    """Rows whose probabilities are too sure: 0.9 is said, and 70 % are right."""
    rows = [{"state": f"p=0.9 state {n}", "answers": {"spam": n % 10 < 7, "tone": "calm"}} for n in range(count)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(name)


CALIBRATE = ["decide", "calibrate", "rows.jsonl", *ASK, "--out", "cal.json", "--gate-nats", "none"]


def test_a_calibration_is_found_written_and_used(decider, capsys):
    labelled(count=200)
    assert main([*CALIBRATE, "--target", "0.95", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    spam, tone = found["questions"]
    # The logit of 0.9 becomes about that of 0.7.
    assert spam["question"] == "spam"
    assert 1.5 < spam["temperature"] < 5
    assert tone["temperature"] < 1
    assert (spam["threshold"], tone["coverage"]) == (None, 1)
    assert found["measured"]["after"]["ece"] < found["measured"]["before"]["ece"]
    assert found["measured"]["fitted_on"]["states"] == found["measured"]["checked_on"]["states"] == 100
    use = ["decide", "--text", "p=0.9", *ASK, "--gate-nats", "none", "--calibration", "cal.json"]
    assert main([*use, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["answers"]
    assert first["code"] == "abstained"
    assert first["reason"].endswith("is not enough: by its calibration, none is")
    assert first["would_be"]["calibrated"]
    assert first["would_be"]["confidence"] == pytest.approx(0.7, abs=0.06)
    assert first["would_be"]["probabilities"][0]["raw"] == pytest.approx(0.9)
    assert second["confidence"] > 0.95
    # With other options it says nothing.
    assert "it was found with draws 1, here it is 2" in refused(capsys, *use[1:], "--draws", "2")


def test_a_calibration_says_where_a_file_s_states_stand(decider):
    labelled()
    assert main([*CALIBRATE]) == 0
    command = [*csv_file(), "--gate-nats", "none", "--calibration", "cal.json"]
    assert main(command) == 0
    assert {options.state for options in decider.options[-3:]} == {"before"}


def test_the_split_follows_from_states_and_seed(decider, capsys):
    labelled(count=60)
    figures = []
    for more in ([], ["--split-seed", "1"], []):
        assert main([*CALIBRATE, "--json", *more]) == 0
        figures.append(json.loads(capsys.readouterr().out)["measured"]["after"])
        lines = Path("rows.jsonl").read_text().splitlines()
        Path("rows.jsonl").write_text("\n".join(lines[::-1]))
    assert figures[0]["nll"] == pytest.approx(figures[2]["nll"])
    assert figures[0]["nll"] != pytest.approx(figures[1]["nll"])


def test_a_calibration_is_shown_before_and_after_and_drawn(decider, capsys):
    pytest.importorskip("matplotlib")
    labelled()
    assert main([*CALIBRATE, "--target", "0.95", "--plot", "cal.png"]) == 0
    said, noted = capsys.readouterr()
    assert "answers about 30 states checked on" in noted
    assert "as read" in said
    assert "ECE, 10 equal bins (floor)" in said
    assert "from 0.9 on" in said
    assert "none is enough" in said
    assert Path("cal.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_calibrated_is_one_line(decider, monkeypatch, capsys):
    labelled(count=10)
    assert "too few rows to calibrate with: 10 states" in refused(capsys, *CALIBRATE[1:])
    labelled()
    assert "target must be an accuracy" in refused(capsys, *CALIBRATE[1:], "--target", "95")
    assert decider.states == []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'redraft[bench]'" in refused(capsys, *CALIBRATE[1:], "--plot", "x.png")
    assert decider.states == []
    assert "there is no folder no" in refused(capsys, *CALIBRATE[1:], "--out", "no/cal.json")


def test_a_bad_path_of_a_calibration_is_found_before_anything_is_asked(decider, capsys):
    labelled()
    Path("folder").mkdir()
    assert refused(capsys, *CALIBRATE[1:], "--out", "folder") == (
        "--out: cannot write folder (Is a directory); name another file"
    )
    assert "--out: there is no folder no" in refused(capsys, *CALIBRATE[1:], "--out", "no/cal.json")
    pytest.importorskip("matplotlib")
    Path("cal.json").write_text("kept")
    assert "--plot: cal.xyz must end in one of " in refused(capsys, *CALIBRATE[1:], "--plot", "cal.xyz")
    assert "--plot: cal must end in one of " in refused(capsys, *CALIBRATE[1:], "--plot", "cal")
    assert "--plot: there is no folder no" in refused(capsys, *CALIBRATE[1:], "--plot", "no/cal.png")
    Path("x.png").mkdir()
    assert "--plot: cannot write x.png" in refused(capsys, *CALIBRATE[1:], "--plot", "x.png")
    assert decider.states == []
    assert Path("cal.json").read_text() == "kept"
    assert refused(capsys, *CALIBRATE[1:], "--out", "new.json", "--target", "95").startswith("--target must be")
    assert not Path("new.json").exists()


def test_a_calibration_says_where_nothing_was_wrong(decider, capsys):
    labelled()
    assert main(CALIBRATE) == 0
    notes = " ".join(capsys.readouterr().err.split())
    said = "tone: none of 30 was wrong, so the temperature is only as sure as 30 rows can make one; "
    assert f"{said}harder rows would say more" in notes
    assert "spam: none" not in notes
    assert "at its bound" not in notes
