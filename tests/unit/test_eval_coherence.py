"""Measures of texts that need no reference, worked out by hand."""

from __future__ import annotations

import json

import pytest
from cli_fakes import generation, stats

import redraft
from redraft.cli import main
from redraft.eval.measures.coherence import (
    doubled_spans,
    doubled_words,
    is_unbalanced,
    measure,
    repetition,
    words_of,
)


def test_words_are_letters_numbers_and_signs():
    assert words_of("It's 3.5 kg, Ann\u2019s (well-known)_") == [
        "it's", "3.5", "kg", ",", "ann\u2019s", "(", "well", "-", "known", ")", "_"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [("a b c d", 2, 0), ("a b a b", 2, 1 / 3), ("a a a a", 2, 2 / 3), ("a", 2, 0), ("", 2, 0), ("a b c a b c", 4, 0)],
)
def test_the_share_of_repeated_runs(text, n, expected):
    assert repetition(words_of(text), n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "words", "spans"),
    [
        ("He went to to the door", [3], []),
        ("The the door", [1], []),
        ("no, no", [], []),
        ("7 7 and - -", [], []),
        ("he went to the went to the door", [], [4]),
        ("a b a b a b", [], [2, 4]),
        ("one two three four five six seven eight " * 2, [], [8]),
        ("one two three four five six seven eight nine " * 2, [], []),
        ("... ... ...", [], []),
        ("", [], []),
    ],
)
def test_what_is_said_twice_at_once(text, words, spans):
    assert doubled_words(words_of(text)) == words
    assert doubled_spans(words_of(text)) == spans


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(a [b] {c})", False), ("(a", True), ("a)", True), ("([)]", True), ("\u201cyes\u201d", False),
        ("\u201cyes", True), ("```py\nx\n```", False), ("```py\nx", True), ("it\u2019s", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_left_open(text, expected):
    assert is_unbalanced(text) is expected


def test_quotes_may_be_left_out():
    assert not is_unbalanced("\u201cyes", quotes=False)


def test_figures_are_per_thousand_words():
    found = measure("so so it is it is")
    assert (found["words"], found["doubled_words"], found["doubled_spans"]) == (6, 1000 / 6, 1000 / 6)
    assert (found["doubled"], found["unbalanced"]) == (1, 0)
    assert measure("")["doubled_words"] == 0


def test_replies_stand_beside_what_people_wrote(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    texts = ("It was a a dark night.", "Nobody came. (Nobody", "The end.")
    rows = [{"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "Well, well."}]} for n
            in range(3)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    class Engine:
        def generate_batch(self, requests):
            return [
                generation(text=texts[int(r.prompt[0]["content"])], tool_calls=(), finish_reason="stop", stats=stats())
                for r in requests
            ]

    monkeypatch.setattr(redraft, "load", lambda model, **settings: Engine())
    assert main(["eval", "coherence", "--data", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["doubled"], found["unbalanced"], found["empty"]) == (1 / 3, 1 / 3, 0)
    assert (found["doubled_of_references"], found["words_of_references"]) == (0, 4)
    assert main(["eval", "coherence", "--data", str(path)]) == 0
    assert "33.3 %" in capsys.readouterr().out
