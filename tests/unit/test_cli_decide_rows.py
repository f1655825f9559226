"""`redraft decide --states`: files of states, and what files come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from decide_commands import ASK, STATES, csv_file, refused, rows_of, use
from decide_fakes import SPAM, TONE, FakeDecider

from redraft.cli import main
from redraft.core.errors import OptionError


def test_rows_get_their_answers(decider, capsys):
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
    assert {options.state for options in decider.options} == {"behind"}
    assert "4 of 4 rows asked" in capsys.readouterr().err


def test_json_lines_keep_their_rows_and_take_any_state(decider):
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


def test_a_column_may_be_named_or_be_the_whole_row(decider):
    Path("in.jsonl").write_text('{"body": "p=0.9", "id": 1}\n')
    assert main(["decide", "--states", "in.jsonl", *ASK, "--out", "a.jsonl", "--column", "body"]) == 0
    assert main(["decide", "--states", "in.jsonl", *ASK, "--out", "b.jsonl"]) == 0
    assert decider.states == ["p=0.9", {"body": "p=0.9", "id": 1}]


def test_what_was_interrupted_goes_on(decider, monkeypatch, capsys):
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
def test_a_row_that_was_cut_off_is_asked_again(decider, form):
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
def test_a_row_that_was_cut_off_within_a_character_is_asked_again(decider, form):
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


def test_a_file_of_another_column_is_refused(decider, capsys):
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
    assert decider.states == ["p=0.9"]


@pytest.mark.parametrize("column", ["error", "asked"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_that_has_a_column_of_the_answers_is_refused(decider, capsys, form, column):
    Path("in.csv").write_text(f"text,{column}\np=0.9,kept\n")
    Path("in.jsonl").write_text(f'{{"text": "p=0.9"}}\n{{"text": "p=0.8", "{column}": "kept"}}\n')
    line = refused(capsys, "--states", f"in.{form}", *ASK, "--out", f"out.{form}")
    assert line == f"in.{form}: has a column '{column}' already, which the answers need: rename it"
    assert not Path(f"out.{form}").exists()


def test_a_carriage_return_in_a_cell_is_no_end_of_a_row(decider):
    command = csv_file(states=["p=0.9 one\rtwo", "p=0.6"])
    assert main(command) == 0
    assert b'"p=0.9 one\rtwo"' in Path("out.csv").read_bytes()
    assert [row["text"] for row in rows_of()] == ["p=0.9 one\rtwo", "p=0.6"]
    assert main(command) == 0
    assert len(decider.states) == 2


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
def test_a_file_of_something_else_is_refused(decider, capsys, more, said):
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
def test_files_that_cannot_be_used_are_one_line(decider, capsys, more, said):
    Path("short.csv").write_text("a,b\nx\n")
    Path("twice.csv").write_text("a,a\nx,y\n")
    Path("empty.csv").write_text("a,b\n")
    assert refused(capsys, *csv_file()[1:], *more).startswith(said)
    assert decider.states == []


def test_an_option_that_one_row_has_no_room_for_is_that_row_s_error(decider, monkeypatch, capsys):
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
def test_an_option_that_is_wrong_for_every_row_is_found_before_the_first(decider, capsys, more, said):
    assert refused(capsys, *csv_file()[1:], *more).startswith(said)
    assert not Path("out.csv").exists()
    assert refused(capsys, "--text", "p=0.9", *ASK, *more).startswith(said)
    assert decider.states == []
