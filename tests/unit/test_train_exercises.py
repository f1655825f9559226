"""Puzzles and damaged texts that the project makes itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from redraft.text.conversations import Conversation, read_conversations
from redraft.train import repair, sudoku
from redraft.train.augment import Augmentation
from redraft.train.recipe import read_recipe

ROOT = Path(__file__).parent.parent.parent
LINES = [
    *([9 * row + column for column in range(9)] for row in range(9)),
    *([9 * row + column for row in range(9)] for column in range(9)),
    *([27 * (b // 3) + 3 * (b % 3) + 9 * (i // 3) + i % 3 for i in range(9)] for b in range(9)),
]


def rng(seed=0):
    return np.random.default_rng(seed)


def is_solution_of(solution, grid):
    whole = all(sorted(solution[cell] for cell in line) == list(range(1, 10)) for line in LINES)
    return whole and all(given in (0, value) for given, value in zip(grid, solution, strict=True))


@pytest.mark.parametrize("clues", [30, 45])
def test_a_puzzle_has_its_clues_and_one_solution(clues):
    grid, solution = sudoku.puzzle(rng(clues), clues)
    assert sum(value > 0 for value in grid) == clues
    assert is_solution_of(solution, grid)
    assert list(sudoku.solutions(grid)) == [solution]
    assert sudoku.puzzle(rng(clues), clues) == (grid, solution), "a seed makes one puzzle"
    assert sudoku.puzzle(rng(clues + 1), clues) != (grid, solution)


def test_a_puzzle_may_have_no_or_many_solutions():
    grid, solution = sudoku.puzzle(rng(), 40)
    wrong = list(grid)
    cell = grid.index(0)
    wrong[cell] = next(value for value in range(1, 10) if value != solution[cell])
    assert list(sudoku.solutions(wrong)) == []
    assert list(sudoku.solutions([5, 5] + [0] * 79)) == []
    two = sudoku.solutions([0] * 81)
    assert next(two) != next(two)


def test_another_form_is_another_puzzle_with_one_solution():
    grid, solution = sudoku.puzzle(rng(), 32)
    messages = sudoku.conversation(grid, solution)
    assert sudoku.read(messages[0]["content"]) == grid
    seen = set()
    for seed in range(4):
        varied = sudoku.varied(messages, rng(seed))
        other, solved = (sudoku.read(message["content"]) for message in varied)
        assert sum(value > 0 for value in other) == 32
        assert list(sudoku.solutions(other)) == [solved]
        seen.add(tuple(solved))
    assert len(seen) == 4


PROSE = (
    "It was late. The rain fell on the roof of the old house, and nobody spoke for a long while. “Who is there?” asked "
    "Ann at last. Nobody answered her.\nA second paragraph stands on its own line; it is one sentence."
)


def test_passages_are_whole_sentences_that_fit():
    found = list(repair.passages(PROSE, 110))
    assert found == [
        "It was late. The rain fell on the roof of the old house, and nobody spoke for a long while.",
        "“Who is there?” asked Ann at last. Nobody answered her.",
        "A second paragraph stands on its own line; it is one sentence.",
    ]
    assert list(repair.passages(PROSE, 70)) == found[1:], "a sentence that is too long is left out"


def test_damage_is_always_there_and_differs():
    text = next(repair.passages(PROSE, 110))
    versions = [repair.damaged(text, rng(seed)) for seed in range(60)]
    assert len(set(versions)) > 50
    changed = [sum(a != b for a, b in zip(text.split(), v.split(), strict=False)) for v in versions]
    assert sum(version == text for version in versions) <= 3, "a letter may be replaced by itself"
    assert any(len(version.split()) < len(text.split()) for version in versions)
    assert sorted(changed)[15] < 6


def test_exercises_are_made_anew_and_nothing_else_changes_them():
    puzzle = Conversation(sudoku.conversation(*sudoku.puzzle(rng(), 40)), 1)
    passage = Conversation(repair.conversation("The rain fell on the roof of the old house.", rng()), 2)
    same = Augmentation([puzzle, passage], swap=1.0, word_noise=0.9)
    fresh = Augmentation([puzzle, passage], fresh=1.0, word_noise=0.9)
    for row in (puzzle, passage):
        assert same(row, rng()).messages == row.messages
        assert fresh(row, rng(5)).messages[0] != row.messages[0]
    assert fresh(passage, rng(5)).messages[1] == passage.messages[1]
    assert fresh(puzzle, rng(5)).messages[1] != puzzle.messages[1]


def test_the_script_writes_what_the_recipe_reads(tmp_path):
    books, out = tmp_path / "books", tmp_path / "out"
    books.mkdir()
    (books / "one.txt").write_text("\n".join(f"{PROSE} Part {i} ends here." for i in range(20)), encoding="utf-8")
    script = ROOT / "recipes" / "mini_gpu" / "prepare.py"
    command = [script, "--books", books, "--out", out, "--puzzles", "12", "--passages", "20", "--processes", "1"]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    recipe = read_recipe(ROOT / "recipes" / "mini_gpu.yaml", [])
    names = {source.path.name for source in recipe.data if source.path.parent.name == "mini_gpu"}
    assert names == {"sudoku.train.jsonl", "repair.train.jsonl"}
    counts = {path.name: len(read_conversations(path)) for path in out.iterdir()}
    assert (counts["sudoku.train.jsonl"], counts["sudoku.test.jsonl"]) == (10, 2)
    assert names < set(counts)
    first = json.loads((out / "repair.train.jsonl").read_text(encoding="utf-8").splitlines()[0])["messages"]
    assert first[0]["content"].startswith(repair.REQUEST)
