"""Measures of decisions on an engine that says what its states say: by hand where they are counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import generation
from decide_fakes import SPAM, TONE, FakeDecider, as_said, by_reader

import redraft
from deciding import options_of, text
from redraft.cli import main
from redraft.core.questions import DecideOptions, Option, choice, predicate
from redraft.core.reads import CanvasRead, CausalRead, Read
from redraft.decide.labels import listed
from redraft.decide.rows import Row, read_rows
from redraft.eval.calibration import fitted_states
from redraft.eval.decisions import evaluate, state_numbers
from redraft.eval.ways import CANVAS, CAUSAL, JOINT, WRITTEN, compare, named, written_answer

QUESTIONS = [SPAM, TONE]
# Only first looks, so that what is counted is what was said.
PLAIN = DecideOptions(gate_nats=None)


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    """Ten states that say 0.9, of which the second and the third are the same, and of whose answers 8 are right."""
    states = [f"p=0.9 state {max(n, 1) if n < 3 else n}" for n in range(10)]
    return written(tmp_path, [{"state": s, "answers": {"spam": n < 8, "tone": "calm"}} for n, s in enumerate(states)])


def written(folder: Path, values: list[dict[str, Any]], questions: list[Any] = QUESTIONS) -> list[Row]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"questions": questions, **value}) + "\n" for value in values))
    return read_rows(path)


def test_measures_of_all_and_by_kind(rows):
    found = evaluate(FakeDecider(), rows, PLAIN, flips=False)
    assert (found["count"], found["states"], found["refused"], found["calibrated"]) == (20, 9, 0, False)
    assert found["accuracy"] == pytest.approx(18 / 20)
    spam, tone = found["by_kind"]["predicate"], found["by_kind"]["choice"]
    assert (spam["accuracy"], tone["accuracy"]) == (0.8, 1)
    # 8 times 2 * 0.1^2, twice 2 * 0.9^2.
    assert spam["brier"] == pytest.approx((8 * 0.02 + 2 * 1.62) / 10)
    assert spam["ece"] == pytest.approx(0.1)
    assert spam["gates"][0] == {"gate": 0.8, "coverage": 1, "wrong": 2}
    low, high = spam["accuracy_interval"]
    assert 0 <= low < 0.8 < high <= 1
    assert found["costs"]["causal_reads"] == 20
    assert found["costs"]["p95_s"] >= found["costs"]["p50_s"] > 0
    assert "flips" not in found


def test_equal_states_count_as_one(rows):
    assert state_numbers(rows) == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_the_same_states_are_fitted_on_in_any_order(rows):
    numbers = state_numbers(rows)
    twice = [*rows, *[Row(line=0, state=r.state, questions=r.questions, shares=r.shares) for r in rows]]
    more = [
        Row(line=n, state=type(r.state)(text=f"{r.state.text} {n}"), questions=r.questions, shares=r.shares)
        for n, r in enumerate(twice)
    ]
    chosen = fitted_states(more, seed=3, fit_share=0.25)
    backwards = fitted_states(more[::-1], seed=3, fit_share=0.25)
    assert len(chosen) == 5
    assert {more[n].state for n in chosen} == {more[::-1][n].state for n in backwards}
    assert chosen != fitted_states(more, seed=4, fit_share=0.25)
    assert numbers == state_numbers(rows)


def first_listed(read: Read, draw: int, slot: int) -> list[float]:
    """Prefers what is listed first, whatever it is."""
    count = options_of(read, slot)
    return [0.6, *[0.4 / (count - 1)] * (count - 1)]


def noisy(read: Read, draw: int, slot: int) -> list[float]:
    """Turns with the noise's seed; the causal mode has none."""
    first = 0.7 if isinstance(read, CausalRead) or read.seed % 2 == 0 else 0.3
    count = options_of(read, slot)
    return [first, *[(1 - first) / (count - 1)] * (count - 1)]


def test_flips_under_reversed_order(rows):
    found = evaluate(FakeDecider(first_listed), rows, PLAIN)["flips"]
    # Letters stand for what is listed there: every choice turns, and no predicate has an order.
    assert found["order"]["count"] == found["order"]["flips"] == 10
    assert found["order"]["max_dp"] == pytest.approx(0.4)
    # The causal mode has no noise.
    assert found["noise"] is None


def test_no_flips_where_options_are_known_by_their_names(rows):
    def calm(read: Read, draw: int, slot: int) -> list[float]:
        if options_of(read, slot) == 2:
            return [0.9, 0.1]
        lines = text(read.prompt).splitlines()
        [letter] = [line[0] for line in lines if line[1:] == ": calm"]
        return [0.8 if place == "ABC".index(letter) else 0.1 for place in range(3)]

    # What labels stand for is found in the listing, so that the option keeps its share; `Driver` gives shares in the
    # question's own order.
    found = evaluate(FakeDecider(calm), rows, PLAIN)["flips"]["order"]
    assert (found["flips"], found["max_dp"]) == (0, pytest.approx(0))


def test_flips_under_other_noise(rows):
    options = DecideOptions(gate_nats=None, reader="canvas", seed=2)
    found = evaluate(FakeDecider(noisy), rows, options)["flips"]["noise"]
    assert (found["count"], found["flips"]) == (20, 20)
    assert found["max_dp"] == pytest.approx(0.4)
    same = evaluate(FakeDecider(as_said), rows, options)["flips"]["noise"]
    assert (same["flips"], same["max_dp"]) == (0, 0)


def test_ways_are_compared_on_the_same_rows(rows):
    replies = iter([generation(text=said, tool_calls=()) for said in ["Yes.", "A: calm"] * 8 + ["no", "B", "what", ""]])
    engine = FakeDecider(by_reader, reply=lambda messages: next(replies))
    found = compare(engine, rows, PLAIN, ways=(JOINT, CANVAS, CAUSAL, WRITTEN))
    ways = found["ways"]
    # The causal mode says the reverse: wrong where the canvas is right. Of two states, each has one of two answers.
    assert [ways[w.name]["accuracy"] for w in (JOINT, CANVAS, CAUSAL)] == pytest.approx([0.9, 0.9, 0.1])
    # Of the last two rows "no" is right, "B" is not, and two replies name nothing.
    assert ways["written out"]["accuracy"] == pytest.approx(17 / 20)
    assert ways["written out"]["refused"] == 2
    assert "brier" not in ways["written out"]
    assert ways["canvas, joint"]["costs"]["canvas_reads"] == 10
    assert ways["canvas"]["costs"]["canvas_reads"] == 20
    assert next((pair["one"], pair["other"]) for pair in found["pairs"]) == ("canvas, joint", "canvas")
    [pair] = [p for p in found["pairs"] if (p["one"], p["other"]) == ("canvas", "causal")]
    assert pair["accuracy"]["difference"] == pytest.approx(0.8)
    assert pair["accuracy"]["low"] <= 0.8 <= pair["accuracy"]["high"]
    assert (pair["better"], pair["worse"]) == (7, 0)
    assert pair["brier"]["difference"] < 0
    assert engine.generated[0]["prompt"][-1]["content"].endswith("Answer yes or no.")
    # Looked at once, whatever was asked for.
    assert all(options.gate_nats is None and not options.second_reader for options in engine.options)


def test_without_two_questions_there_is_nothing_joint(tmp_path):
    few = written(tmp_path, [{"state": "p=0.9", "answers": {"spam": True}}], [SPAM])
    assert list(compare(FakeDecider(), few, PLAIN, ways=(JOINT, CANVAS))["ways"]) == ["canvas"]
    assert list(compare(FakeDecider(), few, DecideOptions(agree=True), ways=(CANVAS,))["ways"]) == ["canvas"]


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ("B", 1), (" b.\n", 1), ("C: a sad one", 2), ("(A)", 0), ("calm", 0), ("Angry.", 1), ("A song", None),
        ("bad", None), ("", None), ("D", None), ("the answer is B", None),
    ],
)  # fmt: skip
def test_what_a_written_answer_names(said, option):
    put = listed(choice("?", ["calm", "angry", "sad"]), "letter")
    assert named(put, said) == option


def test_yes_and_no_in_words():
    put = listed(predicate("?"), "yes/no")
    assert [named(put, said) for said in ("yes", "No.", "yes: it is", "yesterday", "true")] == [0, 1, 0, None, None]


def test_a_reply_is_read_by_how_it_begins(rows):
    options = [
        Option(value="A", reply="<|tool_call>call:Play{"),
        Option(value="B", reply="<|tool_call>call:PlayMusic{"),
    ]
    question = choice("", options, form="reply")
    for raw, option in (("<|tool_call>call:PlayMusic{x", 1), ("<|tool_call>call:Play{x", 0), ("I can only", None)):
        engine = FakeDecider(reply=lambda messages, raw=raw: generation(raw=raw))
        assert written_answer(engine, rows[0].state, question, PLAIN, seed=5) == option
        # What the reply is to is the conversation as it stands, at no length of ours.
        assert engine.generated == [{"prompt": [{"role": "user", "content": "p=0.9 state 1"}], "seed": 5}]


def test_the_command_prints_tables_and_json(rows, tmp_path, monkeypatch, capsys):
    engine = FakeDecider()
    monkeypatch.setattr(redraft, "load", lambda model, **settings: engine)
    command = ["eval", "decisions", "--data", str(tmp_path / "rows.jsonl"), "--gate-nats", "none"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["accuracy"] == pytest.approx(0.9)
    assert document["flips"]["noise"] is None
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "predicate" in shown
    assert "90.0 % [" in shown
    assert "flips, order" in shown
    assert main([*command, "--compare", "--limit", "4"]) == 0
    shown = capsys.readouterr().out
    assert "4 draws" in shown
    assert "canvas - causal" in shown
    assert len({json.dumps(each["prompt"]) for each in engine.generated}) == 8
    assert main([*command, "--data", str(tmp_path / "missing.jsonl")]) == 2


def test_a_canvas_read_is_what_joint_questions_share(rows):
    engine = FakeDecider()
    evaluate(engine, rows[:1], DecideOptions(joint=True, gate_nats=None), flips=False)
    [read] = engine.driver.reads
    assert isinstance(read, CanvasRead)
    assert len(read.slots) == 2
