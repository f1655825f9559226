"""`redraft decide` and `redraft decide calibrate`: what people type, what they read, and what files come of it."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from decide_fakes import SPAM, TONE, URGENCY, FakeDecider, by_reader

import redraft
from redraft.cli import main
from redraft.cli.decide_options import decide_flags
from redraft.core.errors import OptionError
from redraft.core.questions import DecideOptions

QUESTIONS = [SPAM, TONE]


@pytest.fixture
def engine(monkeypatch, tmp_path) -> FakeDecider:
    monkeypatch.chdir(tmp_path)
    Path("questions.json").write_text(json.dumps(QUESTIONS))
    return use(monkeypatch, FakeDecider())


def use(monkeypatch, engine: FakeDecider) -> FakeDecider:
    monkeypatch.setattr(redraft, "load", lambda model, **settings: engine)
    return engine


def refused(capsys, *arguments: str) -> str:
    """What a command says that exits with 2."""
    assert main(["decide", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("redraft: ")
    return line.removeprefix("redraft: ")


ASK = ["--questions", "questions.json"]


def test_every_option_has_a_flag_that_arrives(engine, monkeypatch):
    flags = decide_flags()
    assert set(flags) == {name if name != "state" else "place" for name in DecideOptions.__dataclass_fields__}
    given = ["--joint", "--reader", "canvas", "--place", "behind", "--draws", "2", "--gate-nats", "none"]
    given += ["--more-draws", "0", "--no-second-reader", "--least-mass", "0.1", "--least-confidence", "0.2"]
    given += ["--steps", "2", "--width", "16", "--seed", "9", "--no-empty-thought"]
    assert main(["decide", "--text", "p=0.9", *ASK, *given]) == 0
    assert engine.options == [
        DecideOptions(
            joint=True, reader="canvas", state="behind", draws=2, gate_nats=None, more_draws=0, second_reader=False,
            least_mass=0.1, least_confidence=0.2, steps=2, width=16, seed=9, empty_thought=False,
        )
    ]  # fmt: skip
    assert main(["decide", "--text", "p=0.9", *ASK, "--agree"]) == 0
    assert engine.options[-1] == DecideOptions(agree=True)


def test_people_get_bars_and_doubts_in_words(engine, capsys):
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


def test_a_score_says_where_it_lies_and_many_options_are_summed_up(engine, capsys):
    many = {"type": "choice", "name": "many", "instructions": "?", "choices": [f"o{n}" for n in range(26)]}
    assert main(["decide", "--text", "p=0.5", "--questions", json.dumps([URGENCY, many])]) == 0
    lines = capsys.readouterr().out.splitlines()
    # 0.25 of each other level: 0.25 + 2 * 0.25.
    assert lines[0].rstrip() == "urgency: low, 0.75 of 2"
    [others] = [line.split() for line in lines if "others" in line]
    assert others[:2] == ["14", "others"]
    assert others[-2:] == ["28.0", "%"]


def test_answers_that_are_withheld_say_why(engine, capsys):
    assert main(["decide", "--text", "p=0.75", *ASK, "--least-confidence", "0.8"]) == 0
    said = capsys.readouterr().out
    assert "spam: no answer: confidence 0.75 is below 0.8" in said
    assert "75.0 %" in said


def test_little_label_mass_is_said(monkeypatch, engine, capsys):
    use(monkeypatch, FakeDecider(mass=0.013))
    assert main(["decide", "--text", "p=0.99", *ASK]) == 0
    assert "the options hold 1.3 % of what the model would write here" in capsys.readouterr().out


def test_readers_that_disagree_are_told(monkeypatch, engine, capsys):
    use(monkeypatch, FakeDecider(by_reader))
    assert main(["decide", "--text", "p=0.8", *ASK, "--reader", "canvas"]) == 0
    said = capsys.readouterr().out
    assert "in doubt: the canvas and the causal mode disagree" in said
    assert "4 draws, up to 3.0 points apart" in said


def test_a_question_that_cannot_be_asked_stands_beside_the_others(engine, capsys):
    broken = {"type": "choice", "name": "broken", "instructions": "?", "choices": ["a"]}
    assert main(["decide", "--text", "p=0.9", "--questions", json.dumps([SPAM, broken])]) == 0
    out = capsys.readouterr().out
    assert "spam: yes" in out
    assert "broken: cannot be asked: choices must be 2 to 255, got 1" in out
    assert "question 1 (broken) cannot be asked" in refused(capsys, "--text", "x", "--questions", json.dumps([broken]))


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_questions_that_this_model_cannot_be_asked_end_as_broken_ones_do(engine, capsys, more):
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


def test_json_is_one_document(engine, capsys):
    assert main(["decide", "--text", "p=0.9", *ASK, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [answer["name"] for answer in found["answers"]] == ["spam", "tone"]
    assert found["answers"][0]["probabilities"][0]["probability"] == pytest.approx(0.9)
    assert found["stats"]["reads"] >= 2


def test_states_come_from_files_and_standard_input(engine, monkeypatch):
    messages = [{"role": "user", "content": "p=0.9"}]
    Path("state.txt").write_text("p=0.9 text\n")
    Path("state.json").write_text(json.dumps({"messages": messages}))
    Path("value.json").write_text('{"p": "p=0.9"}')
    for name in ("state.txt", "state.json", "value.json"):
        assert main(["decide", "--state", name, *ASK]) == 0
    for typed in ('[{"role": "user", "content": "p=0.9"}]', "[not json\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert main(["decide", "--state", "-", *ASK]) == 0
    assert engine.states == ["p=0.9 text", {"messages": messages}, {"p": "p=0.9"}, messages, "[not json"]


def test_questions_come_as_yaml_and_as_system_one_s_map(engine, capsys):
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
def test_what_cannot_work_is_one_line(engine, capsys, arguments, said):
    Path("twice.yaml").write_text("a: {type: noul, instructions: x}\na: {type: noul, instructions: y}\n")
    assert refused(capsys, *arguments).startswith(said)


STATES = ["p=0.9 one", 'p=0.2 "two",\nlines', "", "p=0.6 four"]


def csv_file(name: str = "in.csv", states: list[str] = STATES) -> list[str]:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "text"], *([str(n), state] for n, state in enumerate(states))])
    return ["decide", "--states", name, *ASK, "--out", "out.csv"]


def rows_of(name: str = "out.csv") -> list[dict[str, str]]:
    with open(name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_get_their_answers(engine, capsys):
    assert main(csv_file()) == 0
    rows = rows_of()
    assert [row["text"] for row in rows] == STATES
    assert [row["spam"] for row in rows] == ["true", "false", "", "true"]
    assert float(rows[1]["spam_probability"]) == pytest.approx(0.2)
    assert float(rows[1]["spam_confidence"]) == pytest.approx(0.8)
    assert json.loads(rows[0]["tone_probabilities"]) == pytest.approx([0.9, 0.05, 0.05])
    assert rows[3]["spam_note"].startswith("in doubt: entropy")
    assert [row["error"] for row in rows] == ["", "", "state is empty", ""]
    # Many states share what is asked of them.
    assert {options.state for options in engine.options} == {"behind"}
    assert "4 of 4 rows asked" in capsys.readouterr().err


def test_json_lines_keep_their_rows_and_take_any_state(engine):
    rows: list[Any] = [
        {"id": 7, "state": "p=0.9", "more": None},
        {"state": [{"role": "user", "content": "p=0.2"}]},
        {"state": {"messages": [{"role": "user", "content": "p=0.6"}]}},
        "p=0.95",
    ]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["decide", "--states", "in.jsonl", *ASK, "--out", "out.jsonl", "--least-confidence", "0.7"]) == 0
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert list(found[0])[:3] == ["id", "state", "more"]
    assert [row["spam"] for row in found] == [True, False, None, True]
    assert found[2]["spam_note"].startswith("abstained: confidence 0.6 is below 0.7")
    assert found[2]["spam_probability"] == pytest.approx(0.6)
    assert found[3]["state"] == "p=0.95"


def test_a_column_may_be_named_or_be_the_whole_row(engine):
    Path("in.jsonl").write_text('{"body": "p=0.9", "id": 1}\n')
    assert main(["decide", "--states", "in.jsonl", *ASK, "--out", "a.jsonl", "--column", "body"]) == 0
    assert main(["decide", "--states", "in.jsonl", *ASK, "--out", "b.jsonl"]) == 0
    assert engine.states == ["p=0.9", {"body": "p=0.9", "id": 1}]


def test_what_was_interrupted_goes_on(engine, monkeypatch, capsys):
    command = csv_file()
    assert main(command) == 0
    whole = Path("out.csv").read_bytes()
    Path("out.csv").unlink()

    def stop(state: Any) -> None:
        if "four" in state:
            raise KeyboardInterrupt

    use(monkeypatch, FakeDecider(on_state=stop))
    assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert len(rows_of()) == 3
    again = use(monkeypatch, FakeDecider())
    assert main(command) == 0
    assert again.states == ["p=0.6 four"]
    assert Path("out.csv").read_bytes() == whole


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_row_that_was_cut_off_is_asked_again(engine, form):
    command = [*csv_file()[:-1], f"out.{form}"]
    assert main(command) == 0
    out = Path(f"out.{form}")
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    head = len(b"".join(lines[: 3 if form == "csv" else 2]))
    # Behind a row's end, within its last cells, and here and there.
    for length in [head, head + 1, *range(head + 20, len(whole) - 20, 45), *range(len(whole) - 16, len(whole), 3)]:
        out.write_bytes(whole[:length])
        assert main(command) == 0
        assert out.read_bytes() == whole, whole[:length]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_row_that_was_cut_off_within_a_character_is_asked_again(engine, form):
    command = [*csv_file(states=["p=0.9 one", "p=0.6 é€😀"])[:-1], f"out.{form}"]
    assert main(command) == 0
    out = Path(f"out.{form}")
    whole = out.read_bytes()
    at = whole.index("é".encode())
    for length in (at + 1, at + 3, at + 4, at + 6, at + 8):
        out.write_bytes(whole[:length])
        assert main(command) == 0
        assert out.read_bytes() == whole
    out.write_bytes(whole.replace("é".encode(), b"\xff"))
    assert main(command) == 2


def test_a_file_of_another_column_is_refused(engine, capsys):
    Path("in.csv").write_text("text,body\np=0.9,p=0.1\n")
    command = ["--states", "in.csv", *ASK, "--out", "out.csv"]
    assert main(["decide", *command]) == 0
    capsys.readouterr()
    said = "out.csv: cannot be gone on with: its row 1 was asked other questions, or otherwise"
    assert refused(capsys, *command, "--column", "body").startswith(said)
    assert main(["decide", *command, "--column", "text"]) == 0
    capsys.readouterr()
    # The same cells, in which a conversation was one.
    Path("in.jsonl").write_text('{"text": "p=0.9", "body": "p=0.1"}\n')
    assert refused(capsys, *command, "--states", "in.jsonl").startswith(said)
    assert engine.states == ["p=0.9"]


@pytest.mark.parametrize("column", ["error", "asked"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_that_has_a_column_of_the_answers_is_refused(engine, capsys, form, column):
    Path("in.csv").write_text(f"text,{column}\np=0.9,kept\n")
    Path("in.jsonl").write_text(f'{{"text": "p=0.9"}}\n{{"text": "p=0.8", "{column}": "kept"}}\n')
    line = refused(capsys, "--states", f"in.{form}", *ASK, "--out", f"out.{form}")
    assert line == f"in.{form}: has a column '{column}' already, which the answers need: rename it"
    assert not Path(f"out.{form}").exists()


def test_a_carriage_return_in_a_cell_is_no_end_of_a_row(engine):
    command = csv_file(states=["p=0.9 one\rtwo", "p=0.6"])
    assert main(command) == 0
    assert b'"p=0.9 one\rtwo"' in Path("out.csv").read_bytes()
    assert [row["text"] for row in rows_of()] == ["p=0.9 one\rtwo", "p=0.6"]
    assert main(command) == 0
    assert len(engine.states) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--draws", "2"], "its row 1 was asked other questions, or otherwise"),
        (["--questions", json.dumps([{**SPAM, "instructions": "Is this spam?"}, TONE])], "its row 1 was asked other"),
        (["--questions", json.dumps([SPAM])], "its columns are others"),
        (["--states", "other.csv"], "its row 2 is not that of other.csv"),
        (["--states", "fewer.csv"], "it has more rows than fewer.csv"),
    ],
)
def test_a_file_of_something_else_is_refused(engine, capsys, more, said):
    command = csv_file()
    assert main(command) == 0
    csv_file("other.csv", ["p=0.9 one", "p=0.1", "", "p=0.6 four"])
    csv_file("fewer.csv", STATES[:3])
    before = Path("out.csv").read_bytes()
    capsys.readouterr()
    line = refused(capsys, *command[1:], *more)
    assert line.startswith(f"out.csv: cannot be gone on with: {said}")
    assert line.endswith("name another file")
    assert Path("out.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "out.txt"], "out.txt: must end in .csv or .jsonl"),
        (["--out", "in.csv"], "--out is what --states reads"),
        (["--out", "no/out.csv"], "no/out.csv: cannot be written: No such file"),
        (["--column", "body"], "in.csv: has no column 'body'; there is id, text"),
        (["--states", "short.csv"], "short.csv: row 1 has 1 cells, the header has 2"),
        (["--states", "twice.csv"], "twice.csv, line 1: has two columns 'a'"),
        (["--states", "empty.csv"], "empty.csv: holds no rows"),
        (["--questions", json.dumps([{**SPAM, "name": "id"}])], "--questions: name 'id' would make a second column"),
        (["--questions", json.dumps([SPAM, {"type": "noul"}])], "--questions: question 2 cannot be asked: instruct"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(engine, capsys, more, said):
    Path("short.csv").write_text("a,b\nx\n")
    Path("twice.csv").write_text("a,a\nx,y\n")
    Path("empty.csv").write_text("a,b\n")
    assert refused(capsys, *csv_file()[1:], *more).startswith(said)
    assert engine.states == []


def test_an_option_that_one_row_has_no_room_for_is_that_row_s_error(engine, monkeypatch, capsys):
    def narrow(state: Any) -> None:
        if "lines" in state:
            raise OptionError("width must be at least 32, the longest option with its end, got 16")

    use(monkeypatch, FakeDecider(on_state=narrow))
    assert main(csv_file()) == 0
    assert [row["error"].partition(",")[0] for row in rows_of()] == [
        "",
        "--width must be at least 32",
        "state is empty",
        "",
    ]
    assert "2 errors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--width", "49"], "--width must be at most this model's 48, got 49"),
        (["--joint", "--reader", "causal"], "--joint needs a canvas"),
    ],
)
def test_an_option_that_is_wrong_for_every_row_is_found_before_the_first(engine, capsys, more, said):
    assert refused(capsys, *csv_file()[1:], *more).startswith(said)
    assert not Path("out.csv").exists()
    assert refused(capsys, "--text", "p=0.9", *ASK, *more).startswith(said)
    assert engine.states == []


def labelled(name: str = "rows.jsonl", count: int = 60) -> Path:
    """Rows whose probabilities are too sure: 0.9 is said, and 70 % are right."""
    rows = [{"state": f"p=0.9 state {n}", "answers": {"spam": n % 10 < 7, "tone": "calm"}} for n in range(count)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(name)


CALIBRATE = ["decide", "calibrate", "rows.jsonl", *ASK, "--out", "cal.json", "--gate-nats", "none"]


def test_a_calibration_is_found_written_and_used(engine, capsys):
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


def test_a_calibration_says_where_a_file_s_states_stand(engine):
    labelled()
    assert main([*CALIBRATE]) == 0
    command = [*csv_file(), "--gate-nats", "none", "--calibration", "cal.json"]
    assert main(command) == 0
    assert {options.state for options in engine.options[-3:]} == {"before"}


def test_the_split_follows_from_states_and_seed(engine, capsys):
    labelled(count=60)
    figures = []
    for more in ([], ["--split-seed", "1"], []):
        assert main([*CALIBRATE, "--json", *more]) == 0
        figures.append(json.loads(capsys.readouterr().out)["measured"]["after"])
        lines = Path("rows.jsonl").read_text().splitlines()
        Path("rows.jsonl").write_text("\n".join(lines[::-1]))
    assert figures[0]["nll"] == pytest.approx(figures[2]["nll"])
    assert figures[0]["nll"] != pytest.approx(figures[1]["nll"])


def test_a_calibration_is_shown_before_and_after_and_drawn(engine, capsys):
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


def test_what_cannot_be_calibrated_is_one_line(engine, monkeypatch, capsys):
    labelled(count=10)
    assert "too few rows to calibrate with: 10 states" in refused(capsys, *CALIBRATE[1:])
    labelled()
    assert "target must be an accuracy" in refused(capsys, *CALIBRATE[1:], "--target", "95")
    assert engine.states == []
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'redraft[bench]'" in refused(capsys, *CALIBRATE[1:], "--plot", "x.png")
    assert engine.states == []
    assert "there is no folder no" in refused(capsys, *CALIBRATE[1:], "--out", "no/cal.json")


def test_a_bad_path_of_a_calibration_is_found_before_anything_is_asked(engine, capsys):
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
    assert engine.states == []
    assert Path("cal.json").read_text() == "kept"
    assert refused(capsys, *CALIBRATE[1:], "--out", "new.json", "--target", "95").startswith("--target must be")
    assert not Path("new.json").exists()


def test_a_calibration_says_where_nothing_was_wrong(engine, capsys):
    labelled()
    assert main(CALIBRATE) == 0
    notes = " ".join(capsys.readouterr().err.split())
    said = "tone: none of 30 was wrong, so the temperature is only as sure as 30 rows can make one; "
    assert f"{said}harder rows would say more" in notes
    assert "spam: none" not in notes
    assert "at its bound" not in notes
