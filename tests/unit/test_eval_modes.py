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
    warm, asked = engine.asked[:2], engine.asked[2:]
    assert [(options["mode"], options["seed"]) for options in warm] == [("verified", 3), ("diffusion", 3)]
    # Who begins changes with every turn.
    turns = [("verified", 16), ("diffusion", 16), ("diffusion", 4), ("verified", 4)]
    assert [options["mode"] for options in asked] == [mode for mode, count in turns for _ in range(count)]
    verified = [options for options in asked if options["mode"] == "verified"]
    diffusion = [options for options in asked if options["mode"] == "diffusion"]
    assert [options["seed"] for options in verified] == [options["seed"] for options in diffusion] == [*range(3, 23)]
    assert verified[0] == {"mode": "verified", "temperature": 0, "max_new_tokens": 9, "seed": 3}
    assert "temperature" not in diffusion[0]


def test_a_temperature_that_was_asked_for_stays():
    engine = Engine()
    side_by_side(engine, ROWS, is_right, ("autoregressive",), limit=1, options={"temperature": 0.7})
    assert engine.asked[0]["temperature"] == 0.7


def test_a_mode_gets_the_options_that_it_can_have():
    engine = Engine()
    options = {
        "max_denoising_steps": 4,
        "handover_steps": 2,
        "redraft": 1,
        "top_p": 0.5,
        "preset": "fast",
        "stop": ["x"],
    }
    side_by_side(engine, ROWS, is_right, limit=1, options=options)
    asked = {given["mode"]: set(given) - {"mode", "seed", "temperature"} for given in engine.asked}
    assert asked["diffusion"] == {"max_denoising_steps", "handover_steps", "redraft", "preset", "stop"}
    assert asked["verified"] == {"max_denoising_steps", "handover_steps", "top_p", "preset", "stop"}
    assert asked["autoregressive"] == {"top_p", "stop"}


def test_wrong_replies_come_with_their_mode():
    wrong = []
    side_by_side(Engine(), ROWS, is_right, ("diffusion", "verified"), on_wrong=wrong.append)
    assert [entry["mode"] for entry in wrong].count("diffusion") == 20
    assert [entry["mode"] for entry in wrong].count("verified") == 9
    assert wrong[0]["expected"]["text"] == "answer 1"


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


def test_people_get_no_difference_without_what_tells_it(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["eval", "text", "--data", file, "--modes", "diffusion, verified"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    rows = {line[:26].strip(): line[26:].split("  ") for line in out.splitlines() if line.strip()}
    cells = {name: [cell.strip() for cell in found if cell.strip()] for name, found in rows.items()}
    assert cells["40 rows"] == ["diffusion", "verified"]
    assert cells["right"] == ["50.0 %", "77.5 %"]
    assert cells["beside the first, points"] == ["-", "+27.5"]
    assert cells["right here : there alone"] == ["-", "15 : 4"]
    assert cells["exact p"] == ["-", "0.019"]
    assert cells["failed"] == ["1", "1"]


def test_one_mode_is_beside_nothing(file, capsys):
    assert main(["eval", "text", "--data", file, "--modes", "verified", "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "1 row " in out
    assert "beside" not in out


def test_errors_are_written_with_their_mode(file, tmp_path, capsys):
    path = tmp_path / "wrong.jsonl"
    assert main(["eval", "text", "--data", file, "--modes", "verified,diffusion", "--errors", str(path)]) == 0
    assert [json.loads(line)["mode"] for line in path.read_text().splitlines()].count("diffusion") == 20


def test_json_is_one_document(file, capsys):
    assert main(["eval", "text", "--data", file, "--modes", "verified,diffusion", "--limit", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], [line["mode"] for line in found["modes"]]) == ("text", ["verified", "diffusion"])
    assert found["modes"][1]["n"] == 10


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--modes", "diffusion,fast"], "modes must be some of"),
        (["--modes", "verified", "--mode", "diffusion"], "--mode and --modes say the same thing"),
    ],
)
def test_what_cannot_work_is_one_line(file, capsys, more, said):
    assert main(["eval", "text", "--data", file, *more]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"redraft: {said}")
