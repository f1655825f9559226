"""What the tests of `redraft decide` have in common: how it is asked, refused, and given files of states."""

from __future__ import annotations

import csv

from decide_fakes import SPAM, TONE, FakeDecider

import redraft
from redraft.cli import main

QUESTIONS = [SPAM, TONE]
ASK = ["--questions", "questions.json"]
STATES = ["p=0.9 one", 'p=0.2 "two",\nlines', "", "p=0.6 four"]


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


def csv_file(name: str = "in.csv", states: list[str] = STATES) -> list[str]:
    with open(name, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "text"], *([str(n), state] for n, state in enumerate(states))])
    return ["decide", "--states", name, *ASK, "--out", "out.csv"]


def rows_of(name: str = "out.csv") -> list[dict[str, str]]:
    with open(name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
