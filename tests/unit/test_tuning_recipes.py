"""The recipes for tuning are recipes, and what is said of their sizes is so."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from redraft.adapters.settings import Settings, path_of, targeted
from redraft.bench.shapes import shape_config
from redraft.text.conversations import read_conversations
from redraft.train.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["banking/banking.yaml", "qlora.yaml"])
def test_they_are_recipes(name, tmp_path):
    (tmp_path / "my.jsonl").touch()
    recipe = read_recipe(RECIPES / name, [], tmp_path / "my.jsonl")
    assert recipe.canvases == "all"
    assert recipe.adapter is not None


def test_the_released_models_adapter_has_as_many_parameters_as_the_page_says():
    recipe = read_recipe(RECIPES / "qlora.yaml", [])
    assert recipe.adapter is not None
    settings = Settings(targets=recipe.adapter.targets, rank=recipe.adapter.rank, alpha=recipe.adapter.alpha)
    shapes = targeted(settings, shape_config("full"))
    count = sum(settings.rank_of(path_of(name)) * sum(shape) for name, shape in shapes.items())
    assert count == 18_585_600
    # Float32, its gradient and two moments.
    assert count * 16 / 1e9 == pytest.approx(0.30, abs=0.005)


def test_the_banks_rows_are_made(tmp_path, monkeypatch, capsys):
    rows = [("what is my balance", "balance"), ("stop my card", "freeze_account"), ("play jazz", "play_music")]
    rows += [(f"pay bill number {i}", "pay_bill") for i in range(40)]
    source = tmp_path / "train.jsonl"
    source.write_text("".join(json.dumps({"text": text, "intent": intent}) + "\n" for text, intent in rows))
    out = tmp_path / "banking"
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--clinc150", str(source), "--out", str(out)])
    runpy.run_path(str(RECIPES / "banking" / "prepare.py"), run_name="__main__")
    made = [row for name in ("train", "test") for row in read_conversations(out / f"{name}.jsonl")]
    assert len(made) == 42
    assert capsys.readouterr().out.count(" rows") == 2
    replies = {row.messages[0]["content"]: row.messages[1]["content"] for row in made}
    assert replies["stop my card"] == "freeze account"
