"""`redraft decide`: what people type and what they read."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from decide_commands import ASK, refused, use
from decide_fakes import SPAM, URGENCY, FakeDecider, by_reader

from redraft.cli import main
from redraft.cli.decide_options import decide_flags
from redraft.core.questions import DecideOptions


def test_every_option_has_a_flag_that_arrives(decider, monkeypatch):
    flags = decide_flags()
    assert set(flags) == {name if name != "state" else "place" for name in DecideOptions.__dataclass_fields__}
    given = ["--joint", "--reader", "canvas", "--place", "behind", "--draws", "2", "--gate-nats", "none"]
    given += ["--more-draws", "0", "--no-second-reader", "--least-mass", "0.1", "--least-confidence", "0.2"]
    given += ["--steps", "2", "--width", "16", "--seed", "9", "--no-empty-thought"]
    assert main(["decide", "--text", "p=0.9", *ASK, *given]) == 0
    assert decider.options == [
        DecideOptions(
            joint=True, reader="canvas", state="behind", draws=2, gate_nats=None, more_draws=0, second_reader=False,
            least_mass=0.1, least_confidence=0.2, steps=2, width=16, seed=9, empty_thought=False,
        )
    ]  # fmt: skip
    assert main(["decide", "--text", "p=0.9", *ASK, "--agree"]) == 0
    assert decider.options[-1] == DecideOptions(agree=True)


def test_people_get_bars_and_doubts_in_words(decider, capsys):
    assert main(["decide", "--text", "p=0.75", *ASK, "--no-second-reader", "--more-draws", "0"]) == 0
    captured = capsys.readouterr()
    lines = [line.rstrip() for line in captured.out.splitlines()]
    assert lines[0] == "spam: yes"
    assert lines[1] == f"  yes  {'█' * 18}{' ' * 6}   75.0 %"
    assert lines[2] == f"  no   {'█' * 6}{' ' * 18}   25.0 %"
    assert lines[3] == "  in doubt: the options are too close (0.56 nats)"
    assert lines[4] == "tone: calm"
    assert [line.split()[0] for line in lines[5:8]] == ["calm", "angry", "sad"]
    assert "2 causal reads" in captured.err


def test_a_score_says_where_it_lies_and_many_options_are_summed_up(decider, capsys):
    many = {"type": "choice", "name": "many", "instructions": "?", "choices": [f"o{n}" for n in range(26)]}
    assert main(["decide", "--text", "p=0.5", "--questions", json.dumps([URGENCY, many])]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 0.25 of each other level: 0.25 + 2 * 0.25.
    assert lines[0].rstrip() == "urgency: low, 0.75 of 2"
    [others] = [line.split() for line in lines if "others" in line]
    assert others[:2] == ["14", "others"]
    assert others[-2:] == ["28.0", "%"]


def test_answers_that_are_withheld_say_why(decider, capsys):
    assert main(["decide", "--text", "p=0.75", *ASK, "--least-confidence", "0.8"]) == 0
    said = capsys.readouterr().out
    assert "spam: no answer: confidence 0.75 is below 0.8" in said
    assert "75.0 %" in said


def test_little_label_mass_is_said(monkeypatch, decider, capsys):
    use(monkeypatch, FakeDecider(mass=0.013))
    assert main(["decide", "--text", "p=0.99", *ASK]) == 0
    assert "the options hold 1.3 % of what the model would write here" in capsys.readouterr().out


def test_readers_that_disagree_are_told(monkeypatch, decider, capsys):
    use(monkeypatch, FakeDecider(by_reader))
    assert main(["decide", "--text", "p=0.8", *ASK, "--reader", "canvas"]) == 0
    said = capsys.readouterr().out
    assert "in doubt: the canvas and the causal mode disagree" in said
    assert "4 draws, up to 3.0 points apart" in said


def test_a_question_that_cannot_be_asked_stands_beside_the_others(decider, capsys):
    broken = {"type": "choice", "name": "broken", "instructions": "?", "choices": ["a"]}
    assert main(["decide", "--text", "p=0.9", "--questions", json.dumps([SPAM, broken])]) == 0
    out = capsys.readouterr().out
    assert "spam: yes" in out
    assert "broken: cannot be asked: choices must be 2 to 255, got 1" in out
    assert "question 1 (broken) cannot be asked" in refused(capsys, "--text", "x", "--questions", json.dumps([broken]))


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_questions_that_this_model_cannot_be_asked_end_as_broken_ones_do(decider, capsys, more):
    same = {"type": "choice", "name": "same", "instructions": "?", "choices": [True, "true"], "form": "text"}
    assert main(["decide", "--text", "p=0.9", "--questions", json.dumps([same]), *more]) == 2
    assert "choices hold two that are written 'true'" in capsys.readouterr().out
    broken = {"type": "noul"}
    assert main(["decide", "--text", "p=0.9", "--questions", json.dumps([same, broken]), *more]) == 2
    said = capsys.readouterr().out
    assert "choices hold two" in said
    assert "instructions are missing" in said
    assert main(["decide", "--text", "p=0.9", "--questions", json.dumps([same, SPAM]), *more]) == 0
    # What is withheld could be asked.
    withheld = ["--questions", json.dumps([SPAM]), "--least-confidence", "0.99"]
    assert main(["decide", "--text", "p=0.9", *withheld, *more]) == 0


def test_json_is_one_document(decider, capsys):
    assert main(["decide", "--text", "p=0.9", *ASK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [answer["name"] for answer in found["answers"]] == ["spam", "tone"]
    assert found["answers"][0]["probabilities"][0]["probability"] == pytest.approx(0.9)
    assert found["stats"]["reads"] >= 2


def test_states_come_from_files_and_standard_input(decider, monkeypatch):
    messages = [{"role": "user", "content": "p=0.9"}]
    Path("state.txt").write_text("p=0.9 text\n")
    Path("state.json").write_text(json.dumps({"messages": messages}))
    Path("value.json").write_text('{"p": "p=0.9"}')
    for name in ("state.txt", "state.json", "value.json"):
        assert main(["decide", "--state", name, *ASK]) == 0
    for typed in ('[{"role": "user", "content": "p=0.9"}]', "[not json\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main(["decide", "--state", "-", *ASK]) == 0
    assert decider.states == ["p=0.9 text", {"messages": messages}, {"p": "p=0.9"}, messages, "[not json"]


def test_questions_come_as_yaml_and_as_system_one_s_map(decider, capsys):
    asked = {"spam": {"type": "noul", "instructions": "Is it spam?", "criteria": {True: "an advertisement"}}}
    Path("questions.yaml").write_text(yaml.safe_dump(asked))
    assert main(["decide", "--text", "p=0.9", "--questions", "questions.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answers"][0]["name"] == "spam"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--text", "x"], "--questions is missing: give a JSON or YAML file"),
        ([*ASK], "the state is missing: give one of --state FILE, --text TEXT"),
        (["--text", "x", "--state", "y", *ASK], "--state and --text exclude each other"),
        (["--states", "in.csv", *ASK], "--states and --out go together"),
        (["--text", "x", "--column", "a", *ASK], "--column says which of --states is meant"),
        (["--state", "missing.txt", *ASK], "missing.txt: cannot be read: No such file"),
        (["--text", "x", "--questions", "missing.yaml"], "missing.yaml: cannot be read: No such file"),
        (["--text", "x", "--questions", "[{]"], "the text: is no JSON"),
        (["--text", "x", "--questions", "[]"], "--questions: questions must be 1 to 400, got 0"),
        (["--text", "x", "--questions", "twice.yaml"], "twice.yaml: is no YAML: 'a' stands there twice"),
        (["--text", " ", *ASK], "state is empty"),
        (["--text", "x", *ASK, "--draws", "0"], "--draws must be an integer of at least 1, got 0"),
        (["--text", "x", *ASK, "--place", "left"], "--place must be one of 'auto', 'before', 'behind', got 'left'"),
        (["--text", "x", *ASK, "--agree", "--no-second-reader"], "--agree compares two readers, so it needs second_"),
        (["--text", "x", *ASK, "--gate-nats", "much"], "--gate-nats must be a number of nats or none, got 'much'"),
        (["--text", "x", *ASK, "--calibration", "questions.json"], "questions.json: calibration must be an object"),
        (["--text", "x", *ASK, "calibrate", "rows.jsonl", "--out", "c.json"], "options of calibrate stand behind"),
        (["calibrate", "rows.jsonl", *ASK], "Missing option '--out'"),
        (["calibrate", "rows.jsonl", *ASK, "--out", "c.json"], "rows.jsonl: no such file"),
    ],
)
def test_what_cannot_work_is_one_line(decider, capsys, arguments, said):
    Path("twice.yaml").write_text("a: {type: noul, instructions: x}\na: {type: noul, instructions: y}\n")
    assert refused(capsys, *arguments).startswith(said)
