"""Tasks with references: graders rule by rule, gold replies through the whole command, and gold that is shuffled."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from cli_fakes import generation, stats

import redraft
from redraft.cli import main
from redraft.core.errors import DataError
from redraft.eval.graders.numbers import last, marked
from redraft.eval.graders.sudoku import is_valid, puzzle, solution_in
from redraft.eval.tasks import gsm8k, sudoku


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 6 * 7 = 42\n#### 42", 42),
        ("####42", 42),
        ("#### 1,234", 1234),
        ("#### $1,234.50.", "1234.5"),
        ("#### -7.", -7),
        ("#### 41 no: #### 42", 42),
        ("#### 42.0", 42),
        ("#### **42**", 42),
        ("#### $-7", -7),
        ("#### -$7", -7),
        ("#### \u22127", -7),
        ("#### 42\n#### .", 42),
        ("#### x", None),
        ("#### .", None),
        ("the answer is 42", None),
        ("", None),
    ],
)
def test_the_number_behind_the_mark(text, number):
    assert marked(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        ("$1,250 in all, not 3", 3),
        ("first 3, then $1,250.", 1250),
        ("it is 7 ...", 7),
        ("-5", -5),
        ("a debt of $-5", -5),
        ("a debt of -$5", -5),
        ("\u22125", -5),
        ("so 10-5", 5),
        (".5 of it", "0.5"),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    assert last(text) == (None if number is None else Decimal(number))


PROBLEMS = [{"question": f"How many are {n} and {n}?", "answer": f"{n} + {n} = {2 * n}\n#### {2 * n:,}"} for n in
            range(600, 612)]  # fmt: skip


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    return path


class Gold:
    """Replies with what `say` makes of a prompt; keeps the options."""

    def __init__(self, say):
        self.say, self.options = say, []

    def generate_batch(self, requests):
        self.options += [request.options for request in requests]
        return [
            generation(text=self.say(request.prompt[0]["content"]), tool_calls=(), finish_reason="stop", stats=stats())
            for request in requests
        ]


def run(monkeypatch, capsys, engine, *arguments):
    monkeypatch.setattr(redraft, "load", lambda model, **settings: engine)
    assert main(["eval", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_gold_replies_are_all_right_and_shuffled_ones_are_not(problems, monkeypatch, capsys):
    answers = {row.prompt[0]["content"]: row.text for row in gsm8k.read_rows(problems)}
    engine = Gold(answers.__getitem__)
    found = run(monkeypatch, capsys, engine, "gsm8k", "--data", str(problems))
    assert (found["exact_match"], found["flexible_match"], found["n"]) == (1, 1, 12)
    assert engine.options[0]["max_new_tokens"] == gsm8k.BUDGET
    turned = dict(zip(answers, [*list(answers.values())[1:], ""], strict=True))
    found = run(monkeypatch, capsys, Gold(turned.__getitem__), "gsm8k", "--data", str(problems))
    assert (found["exact_match"], found["flexible_match"]) == (0, 0)


def test_a_number_without_the_mark_is_right_by_the_second_rule_alone(problems, monkeypatch, capsys):
    answers = {row.prompt[0]["content"]: f"It is {marked(row.text)}." for row in gsm8k.read_rows(problems)}
    found = run(monkeypatch, capsys, Gold(answers.__getitem__), "gsm8k", "--data", str(problems), "--limit", "5")
    assert (found["exact_match"], found["flexible_match"], found["n"]) == (0, 1, 5)


@pytest.mark.parametrize("reason", ["length", "error"])
def test_what_was_cut_off_or_failed_is_not_right(problems, reason):
    row = gsm8k.read_rows(problems)[0]
    reply = generation(text=row.text, tool_calls=(), finish_reason=reason, error="lost" if reason == "error" else None)
    assert not gsm8k.is_right(row, reply)
    assert not gsm8k.is_right_anywhere(row, reply)


def test_a_file_without_problems_is_refused(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no problems"):
        gsm8k.read_rows(path)


@pytest.mark.parametrize("line", ["[]", '{"question": "?"}', '{"question": "?", "answer": "42"}'])
def test_lines_that_are_no_problems_are_named(tmp_path, line):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(PROBLEMS[0]) + "\n" + line + "\n")
    with pytest.raises(DataError) as found:
        gsm8k.read_rows(path)
    assert found.value.line == 2


@pytest.mark.parametrize("clues", [70, 40, 30])
def test_puzzles_have_as_many_clues_and_one_solution(clues):
    given, solution = puzzle(clues, seed=3)
    assert (given, solution) == puzzle(clues, seed=3)
    assert sum(cell != "0" for cell in given) == clues
    assert is_valid(solution)
    assert all(clue in ("0", cell) for clue, cell in zip(given, solution, strict=True))
    assert puzzle(clues, seed=4)[1] != solution


def test_a_grid_that_breaks_a_rule_is_not_valid():
    _, solution = puzzle(60, seed=1)
    other = next(place for place, cell in enumerate(solution) if cell != solution[0])
    swapped = list(solution)
    swapped[0], swapped[other] = swapped[other], swapped[0]
    assert not is_valid(swapped)
    assert not is_valid("0" * 81)


def test_a_solution_is_the_last_81_digits():
    assert solution_in(f"Step 1: try 5.\n{sudoku.lines('123456789' * 9)}\n") == "123456789" * 9
    assert solution_in("12") is None


def test_a_reply_is_graded_cell_by_cell(monkeypatch, capsys):
    rows = {row.prompt[0]["content"]: row for row in sudoku.made(6, 50, seed=2)}
    found = run(monkeypatch, capsys, Gold(lambda prompt: rows[prompt].text), "sudoku", "--count", "6", "--clues", "50",
                "--seed", "2")  # fmt: skip
    names = ("exact_match", "blanks_right", "cells_right", "clues_kept", "by_the_rules")
    assert [found[name] for name in names] == [1] * 5
    assert found["clues"] == 50
    # The puzzle itself: clues stand, blanks do not.
    found = run(monkeypatch, capsys, Gold(lambda prompt: rows[prompt].puzzle), "sudoku", "--count", "6", "--clues",
                "50", "--seed", "2")  # fmt: skip
    assert [found[name] for name in names] == [0, 0, pytest.approx(50 / 81), 1, 0]
    found = run(monkeypatch, capsys, Gold(lambda prompt: "no"), "sudoku", "--count", "6", "--clues", "50", "--seed",
                "2")  # fmt: skip
    assert [found[name] for name in names] == [0] * 5


def test_modes_stand_beside_each_other_on_any_task(problems, monkeypatch, capsys):
    engine = Gold(lambda prompt: "#### 1,200")
    found = run(monkeypatch, capsys, engine, "gsm8k", "--data", str(problems), "--modes", "diffusion,verified")
    assert [(line["mode"], line["right"], line["n"]) for line in found["modes"]] == [
        ("diffusion", 1 / 12, 12), ("verified", 1 / 12, 12)
    ]  # fmt: skip
    assert found["modes"][1]["p"] == 1


def test_errors_are_written_with_what_was_expected(problems, tmp_path, monkeypatch, capsys):
    path = tmp_path / "wrong.jsonl"
    run(monkeypatch, capsys, Gold(lambda prompt: "#### 1,200"), "gsm8k", "--data", str(problems), "--errors", str(path))
    wrong = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert len(wrong) == 11
    assert wrong[0]["expected"]["text"] == PROBLEMS[1]["answer"]
