"""A state that cannot be taken up is said in one line, with the way out; a good one survives whatever happens."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from redraft.cli import main
from redraft.core.errors import CheckpointError, RecipeError
from redraft.train import state as state_module
from redraft.train.run import train
from tiny_recipe import write_recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps."""
    path = tmp_path_factory.mktemp("state")
    train(write_recipe(path), ["steps=2"])
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it that goes on with three steps."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def forget_what_it_belongs_to(run):
    """As a state of an earlier version, which does not say."""
    path = run / "run" / "state" / "progress.json"
    path.write_text(json.dumps({name: x for name, x in json.loads(path.read_text()).items() if name != "record"}))


def refused(run, *overrides: str) -> str:
    with pytest.raises(CheckpointError) as raised:
        train(run / "recipe.yaml", ["steps=3", *overrides])
    message = str(raised.value)
    assert "\n" not in message
    assert f"the state in {run}/run/state cannot be taken up" in message
    assert message.endswith(f"delete {run}/run/state to begin anew, or give the run another output")
    return message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"step": "two", "best_loss": 1.0}',
        '{"step": 2, "best_loss": "low"}',
        '{"step": 1, "step": 2}',
    ],
)
def test_damaged_progress(run, text):
    (run / "run" / "state" / "progress.json").write_text(text)
    assert "progress.json" in refused(run)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:1000], lambda data: b"x" * len(data)])
def test_damaged_weights(run, damage):
    path = run / "run" / "state" / "state.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    refused(run)


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json"])
def test_a_missing_file(run, name):
    (run / "run" / "state" / name).unlink()
    assert name in refused(run)


@pytest.mark.parametrize("change", ["model.layers.0.attention", "momentum.layers.9.none"])
def test_weights_of_other_names(run, change):
    path = run / "run" / "state" / "state.safetensors"
    tensors = load_file(path)
    save_file(tensors | {change: next(iter(tensors.values())).clone()}, path)
    refused(run)


def test_another_model(run):
    """Here that of `init`, which another checkpoint has replaced."""
    write_recipe(run, init="mini", model=None, tokenizer=None)
    forget_what_it_belongs_to(run)
    assert "another model" in refused(run)


def test_another_optimizer(run):
    forget_what_it_belongs_to(run)
    assert "another optimizer's" in refused(run, "optimizer=muon")


def test_the_command_says_it_in_one_line(run, capsys):
    (run / "run" / "state" / "state.safetensors").write_bytes(b"")
    assert main(["train", str(run / "recipe.yaml")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"redraft: the state in {run}/run/state cannot be taken up")


def test_a_model_that_an_earlier_recipe_has_made(run):
    """It was gone on with, whatever the recipe said."""
    with pytest.raises(RecipeError, match="model.hidden_size is 48.*made with 32: .*another output"):
        train(run / "recipe.yaml", ["model.hidden_size=48"])
    with pytest.raises(RecipeError, match="model.canvas_length is 16.*made with 24"):
        train(run / "recipe.yaml", ["model.canvas_length=16"])


def test_an_average_may_begin_later(run):
    """It begins with the weights that are there, not with those that the run began with."""
    shutil.rmtree(run / "run")
    train(run / "recipe.yaml", ["steps=2", "ema=0", "learning_rate=0.1"])
    before = load_file(run / "run" / "state" / "state.safetensors")
    forget_what_it_belongs_to(run)
    train(run / "recipe.yaml", ["steps=3", "ema=0.999", "learning_rate=1e-9", "final_learning_rate=1e-9"])
    after = load_file(run / "run" / "state" / "state.safetensors")
    averaged = {name.removeprefix("average."): x for name, x in after.items() if name.startswith("average.")}
    assert averaged
    assert all(x.allclose(before[f"model.{name}"], atol=1e-4) for name, x in averaged.items())


def test_a_state_of_an_earlier_version_is_taken_up(run):
    path = run / "run" / "state" / "progress.json"
    path.write_text('{"step": 2, "best_loss": Infinity}')
    assert train(run / "recipe.yaml", ["steps=3"])["steps"] == 3


@pytest.mark.parametrize("rename", [1, 2, 3])
def test_wherever_saving_ends_a_state_is_left(run, monkeypatch, rename):
    """Renames are that of `progress.json`, of the old state away, and of the new one into its place."""
    calls = []

    def replace(old, new):
        if any(part.startswith("state") for part in new.parts):
            calls.append(new)
            if len(calls) == rename:
                raise KeyboardInterrupt
        os.rename(old, new)

    monkeypatch.setattr(state_module.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        train(run / "recipe.yaml", ["steps=4", "eval_every=100", "save_every=3"])
    monkeypatch.undo()
    assert calls[-1].name == ["progress.json", "state.old", "state"][rename - 1]
    found = [path for path in ((run / "run" / "state"), (run / "run" / "state.old")) if path.exists()]
    assert json.loads((found[0] / "progress.json").read_text())["step"] == 2
    assert train(run / "recipe.yaml", ["steps=4"])["steps"] == 4
    rows = [json.loads(line) for line in (run / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 2, 3, 4]
