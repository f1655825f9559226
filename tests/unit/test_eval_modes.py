"""Modes beside each other on the same rows."""

from __future__ import annotations

import json

import pytest
from cli_fakes import generation, stats

import redraft
from redraft.cli import main
from redraft.core.errors import OptionError
from redraft.eval.data import Row
from redraft.eval.modes import MODES, side_by_side
from redraft.eval.text import is_right

ROWS = [Row(prompt=({"role": "user", "content": str(n)},), calls=(), text=f"answer {n}") for n in range(40)]


class Engine:
    """Knows what is even by canvases, and all but every fifth token by token; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def generate_batch(self, requests):
        self.asked += [request.options for request in requests]
        return [self.reply(int(request.prompt[0]["content"]), request.options["mode"]) for request in requests]

    def reply(self, number, mode):
        right = number % 2 == 0 if mode == "diffusion" else number % 5 != 0
        cost = stats(generated_tokens=12, denoising_steps=5 if mode == "diffusion" else 0, encode_passes=2)
        if number == 39:
            return generation(text="answer 39", tool_calls=(), finish_reason="error", error="lost", stats=cost)
        text = f"answer {number}" if right else "no"
        return generation(text=text, tool_calls=(), finish_reason="length" if not right else "stop", stats=cost)


def test_every_mode_is_told_apart_from_the_first_row_by_row():
    engine, seen = Engine(), []
    lines = side_by_side(engine, ROWS, is_right, seed=3, on_progress=lambda *now: seen.append(now))
    assert [line["mode"] for line in lines] == list(MODES)
    first, second, third = lines
    assert (first["right"], second["right"], first["n"], first["n_failed"]) == (20 / 40, 31 / 40, 40, 1)
    assert (first["against"], first["p"], first["won"]) == (None, None, None)
    # Even fives are known by canvases alone: 0, 10, 20, 30; odd others token by token alone, but 39, which failed.
    assert (second["won"], second["lost"], second["against"]) == (15, 4, pytest.approx(11 / 40))
    assert second["p"] == pytest.approx(2 * sum([1, 19, 171, 969, 3876]) / 2**19)
    assert second["against_low"] < second["against"] < second["against_high"]
    assert {key: second[key] for key in ("right", "won", "p", "against_low")} == {
        key: third[key] for key in ("right", "won", "p", "against_low")
    }
    assert (first["tokens_per_pass"], second["tokens_per_pass"]) == (12 / 6, 12 / 1)
    assert (first["cut"], first["low"] < 0.5 < first["high"]) == (19 / 40, True)
    assert seen == [(16, 40), (32, 40), (40, 40)]


def test_modes_take_turns_with_the_same_seeds_and_the_causal_ones_are_greedy():
    engine = Engine()
    side_by_side(engine, ROWS, is_right, ("verified", "diffusion"), seed=3, limit=20, options={"max_new_tokens": 9})
    assert [options["mode"] for options in engine.asked] == ["verified"] * 16 + ["diffusion"] * 16 + [
        "verified"
    ] * 4 + ["diffusion"] * 4
    verified = [options for options in engine.asked if options["mode"] == "verified"]
    diffusion = [options for options in engine.asked if options["mode"] == "diffusion"]
    assert [options["seed"] for options in verified] == [options["seed"] for options in diffusion] == [*range(3, 23)]
    assert verified[0] == {"mode": "verified", "temperature": 0, "max_new_tokens": 9, "seed": 3}
    assert "temperature" not in diffusion[0]


def test_a_temperature_that_was_asked_for_stays():
    engine = Engine()
    side_by_side(engine, ROWS, is_right, ("autoregressive",), limit=1, options={"temperature": 0.7})
    assert engine.asked[0]["temperature"] == 0.7


@pytest.mark.parametrize("modes", [(), ("diffusion", "diffusion"), ("causal",)])
def test_what_are_no_modes_is_refused(modes):
    with pytest.raises(OptionError, match="modes must be some of diffusion"):
        side_by_side(Engine(), ROWS, is_right, modes)


def test_no_rows_no_comparison():
    with pytest.raises(OptionError, match="no rows"):
        side_by_side(Engine(), [], is_right)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(redraft, "load", lambda model, **settings: Engine())
    path = tmp_path / "rows.jsonl"
    lines = [{"messages": [*row.prompt, {"role": "assistant", "content": row.text}]} for row in ROWS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_people_get_no_difference_without_what_tells_it(file, capsys):
    assert main(["eval", "text", "--data", file, "--modes", "diffusion, verified"]) == 0
    out = capsys.readouterr().out
    assert "40 rows" in out
    [first, second] = [line for line in out.splitlines() if line.startswith((" diffusion", " verified"))]
    assert "50.0 % [35.2, 64.8]" in first
    assert "+" not in first
    assert "+27.5 [" in second
    assert "15 : 4, 0.019" in second


def test_json_is_one_document(file, capsys):
    assert main(["eval", "text", "--data", file, "--modes", "verified,diffusion", "--limit", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], [line["mode"] for line in found["modes"]]) == ("text", ["verified", "diffusion"])
    assert found["modes"][1]["n"] == 10


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--modes", "diffusion,fast"], "modes must be some of"),
        (["--modes", "verified", "--errors", "wrong.jsonl"], "--errors goes with one mode"),
        (["--modes", "verified", "--mode", "diffusion"], "--mode and --modes say the same thing"),
    ],
)
def test_what_cannot_work_is_one_line(file, capsys, more, said):
    assert main(["eval", "text", "--data", file, *more]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"redraft: {said}")
