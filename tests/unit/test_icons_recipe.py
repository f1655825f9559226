"""The recipe of a small model that sees: what it draws, and that a run of it makes what the engine runs."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

import redraft
from redraft.text.conversations import read_conversations
from redraft.train.run import train

FOLDER = Path(__file__).parents[2] / "recipes" / "icons"


@pytest.fixture
def recipe(monkeypatch):
    """Its two files, whose folder is on no path here."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import drawn
    import prepare

    yield drawn, prepare
    for name in ("drawn", "prepare"):
        sys.modules.pop(name)


def test_icons_are_drawn_from_a_seed(recipe):
    drawn, _ = recipe
    for number in range(30):
        kind, colour = drawn.KINDS[number % 8], list(drawn.COLOURS)[number % 6]
        pixels = drawn.icon(kind, colour, random.Random(number))
        assert np.array_equal(pixels, drawn.icon(kind, colour, random.Random(number)))
        assert pixels.shape[0] == pixels.shape[1]
    assert not np.array_equal(pixels, drawn.icon(kind, colour, random.Random(99)))


def test_a_run_makes_what_the_engine_runs(recipe, tmp_path, capsys):
    _, prepare = recipe
    prepare.draw(tmp_path, "train", 12, 0)
    prepare.draw(tmp_path, "test", 2, 1)
    short = ["steps=1", "batch_size=2", "held_out=0.3", "judge_rows=1", "grader=none", f"output={tmp_path / 'run'}"]
    result = train(FOLDER / "icons.yaml", short, tmp_path / "train.jsonl")
    [first, _] = read_conversations(tmp_path / "test.jsonl")
    engine = redraft.load(result["model"], dtype="float32", threads=1)
    reply = engine.generate(first.messages[:1], seed=0, tool_choice="required")
    assert reply.stats.image_tokens == 64
    # Its calls are known by heart, and a reply is held to them.
    known = json.loads((Path(result["model"]) / "tools.json").read_text())
    assert [tool["function"]["name"] for tool in known["tools"]] == ["Seen"]
    assert [call.name for call in reply.tool_calls] == ["Seen"]
    said = engine.template.render(first.messages, images=[], add_generation_prompt=False).rpartition("model\n")[2]
    assert said.startswith('<|tool_call>call:Seen{colour:<|"|>')
    assert len(engine.encode(said.strip())) <= engine.info.canvas_length
