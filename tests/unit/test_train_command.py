"""`redraft train` without a recipe, and the options that it shares with one that is there."""

from __future__ import annotations

import json

import pytest
import yaml

from redraft.checkpoint.locate import BUNDLED
from redraft.cli import main
from redraft.model.config import ModelConfig
from redraft.text.conversations import Conversation
from redraft.train import run as run_module
from redraft.train.defaults import default_fields
from redraft.train.recipe import Recipe
from redraft.train.stopping import Interrupted
from tiny_recipe import write_recipe

SETTINGS = ("steps=2", "batch_size=2", "eval_every=2", "max_length=64", "log_every=1")
SHORT = [word for setting in SETTINGS for word in ("--set", setting)]


def row(text, reply, calls=None):
    said = {"role": "assistant", "content": reply} | ({"tool_calls": calls} if calls else {})
    return Conversation([{"role": "user", "content": text}, said], 1)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("prompt,completion\n" + "".join(f"say {i},word {i}\n" for i in range(4)))
    return path


def test_a_model_and_a_file_are_enough(tmp_path, data, capsys):
    out = tmp_path / "out"
    command = ["train", "--init", "mini", "--data", str(data), "--out", str(out), *SHORT, "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 2
    assert result["adapter"] == str(out / "adapter")
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert (recipe["init"], recipe["steps"], recipe["canvases"]) == ("mini", 2, "all")
    # The same again has nothing left to do; the recipe by itself goes on with it.
    assert main(command) == 0
    assert main(["train", str(out / "recipe.yaml"), "--set", "steps=3", "--json"]) == 0
    capsys.readouterr()
    assert main([*command, "--set", "learning_rate=0.5"]) == 2
    assert "recipe.yaml is there and differs in learning_rate: " in capsys.readouterr().err
    data.write_text(data.read_text() + "say 9,word 9\n")
    assert main(["train", str(out / "recipe.yaml"), "--set", "steps=4"]) == 2
    assert f"{data} has changed" in capsys.readouterr().err
    assert main(["train", "--init", "mini", "--data", str(data), "--out", str(out), "--plot"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "loss.png")


def test_what_is_lacking_is_said(tmp_path, data, capsys):
    assert main(["train", "--init", "mini", "--data", str(data)]) == 2
    assert "name a recipe, or give all of --init, --data and --out" in capsys.readouterr().err
    assert main(["train", "--init", "mini", "--data", str(data), "--out", str(data / "x"), *SHORT]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["train", "--init", "nowhere", "--data", str(data), "--out", str(tmp_path / "x")]) == 2


def test_options_change_a_recipe(tmp_path, monkeypatch, capsys):
    recipe = write_recipe(tmp_path)
    seen = {}

    def noted(path, overrides, data, judge):
        seen.update(overrides=overrides, data=data)
        raise Interrupted(15)

    monkeypatch.setattr(run_module, "train", noted)
    options = "--set steps=9 --init mini --out run --grader calls --watch wandb --skip-bad"
    assert main(["train", str(recipe), *options.split()]) == 128 + 15
    assert "steps=9" in seen["overrides"]
    assert 'init="mini"' in seen["overrides"]
    assert 'watch=["wandb"]' in seen["overrides"]
    assert "skip_bad=true" in seen["overrides"]
    assert f"redraft train {recipe} {options}" in capsys.readouterr().err


def test_the_defaults_are_a_recipe_and_fit_the_rows():
    config = ModelConfig.from_directory(BUNDLED / "mini")
    call = [{"type": "function", "function": {"name": "A", "arguments": {}}}]
    for rows, grader, held_out in (
        ([row("a", "b")] * 5, "none", 0.0),
        ([row("a", "b")] * 100, "exact", 0.1),
        ([row("a", None, call)] * 4000, "calls", 0.05),
        ([row("a", "long " * 50)] * 100, "none", 0.1),
    ):
        fields = default_fields(config, rows)
        assert (fields["grader"], fields["held_out"]) == (grader, held_out)
        made = Recipe.model_validate({"output": "x", "init": "mini", "data": [{"path": "y"}], **fields})
        assert 100 <= made.steps <= 2000
        assert made.batch_size <= len(rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("adapter.rank=0", "rank must be an integer of at least 1, got 0"),
        ("adapter.targets=[nothing]", "target 'nothing' is no module here"),
        ("grader=best", "grader: "),
        ("watch=[mlflow]", "watch"),
    ],
)
def test_bad_input_is_one_line(tmp_path, data, capsys, change, reason):
    command = ["train", "--init", "mini", "--data", str(data), "--out", str(tmp_path / "out"), *SHORT, "--set", change]
    assert main(command) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "an epoch has" not in line]
    assert len(lines) == 1
    assert reason in lines[0]
