"""A whole small training run: tokenizer, loss curve, interruption, resume, warm start, errors."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import redraft
from redraft.core.errors import DataError, GenerationError, InputError, RecipeError
from redraft.train import run as run_module
from redraft.train.data import open_stream
from redraft.train.plot import plot_run
from redraft.train.prefetch import Prefetch
from redraft.train.recipe import read_recipe
from redraft.train.run import learning_rate, train
from redraft.train.stopping import Stop
from tiny_recipe import RECIPE, write_recipe


@pytest.fixture
def recipe(tmp_path):
    return write_recipe(tmp_path)


def curve(directory, kind="train"):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if row["kind"] == kind]


def test_an_interrupted_run_goes_on_with_the_same_curve(recipe, tmp_path, monkeypatch):
    result = train(recipe)
    whole = curve(tmp_path / "run")
    assert [step for step, _ in whole] == list(range(1, 9))
    assert result["steps"] == 8

    steps = run_module._Trainer._step

    def interrupted(self, step):
        if step == 5:
            raise KeyboardInterrupt
        return steps(self, step)

    monkeypatch.setattr(run_module._Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, ["output=again"])
    monkeypatch.undo()
    train(recipe, ["output=again"])
    # Step 5 was taken twice, the state being that of step 4, and stands there once.
    assert curve(tmp_path / "again") == whole
    assert curve(tmp_path / "again", "held_out") == curve(tmp_path / "run", "held_out")


def test_what_it_writes_is_a_model_that_answers(recipe, tmp_path):
    train(recipe)
    engine = redraft.load(tmp_path / "run" / "model", threads=1)
    assert engine.info.has_chat_template
    reply = engine.generate("please call Ann on Friday", seed=0, max_new_tokens=24, max_denoising_steps=4)
    assert reply.stats.prompt_tokens > 5


def test_it_learns(recipe, tmp_path):
    train(recipe, ["steps=60", "eval_every=60", "learning_rate=0.01", "warmup_steps=5"])
    losses = [loss for _, loss in curve(tmp_path / "run")]
    assert losses[-1] < 0.7 * losses[0]


def test_a_warm_start_begins_where_the_model_stands(recipe, tmp_path):
    train(recipe, ["steps=60", "eval_every=60", "learning_rate=0.01", "warmup_steps=5"])
    warm = tmp_path / "warm.yaml"
    fields = {key: value for key, value in RECIPE.items() if key not in ("model", "tokenizer")}
    warm.write_text(yaml.safe_dump({**fields, "output": "warm", "init": "run/model", "steps": 2}))
    train(warm)
    assert curve(tmp_path / "warm")[0][1] < 0.8 * curve(tmp_path / "run")[0][1]


def test_a_batch_without_a_supervised_token_is_no_nan(recipe, tmp_path):
    """Prompts that leave no room are left out; a response cut to its first token still trains."""
    train(recipe, ["max_length=16", "steps=2", "eval_every=2"])
    assert all(loss == loss for _, loss in curve(tmp_path / "run"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "no JSON"),
        ('{"text": "hi"}', "no conversation"),
        ('{"messages": [{"role": "robot", "content": "hi"}]}', "robot"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "no assistant message"),
        ('{"messages": [{"role": "user", "content": ""}]}', "empty user message"),
    ],
)
def test_a_row_that_is_no_conversation_is_named_by_its_line(recipe, tmp_path, row, reason):
    path = tmp_path / "data.jsonl"
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(DataError, match=f"data.jsonl, line 65: .*{reason}"):
        train(recipe)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("steps=0", "steps"),
        ("stepz=3", "stepz"),
        ("model.hidden_sise=3", "hidden_sise"),
        ("steps", "key=value"),
        ("save_dtype=float8", "save_dtype"),
        ("init=mini", "either init"),
        ("steps=-3", "steps: .* -3"),
        ("save_minutes=0", "save_minutes: .* 0"),
        ("stepz=3", "stepz: a recipe has no such field"),
        ("steps=[", "steps=\\[.*not valid YAML"),
        ("steps=2026-13-40", "2026-13-40.*not valid YAML"),
    ],
)
def test_a_recipe_that_cannot_work(recipe, override, reason):
    with pytest.raises(RecipeError, match=reason) as raised:
        read_recipe(recipe, [override])
    assert "\n" not in str(raised.value)


def test_a_recipe_that_is_none(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml", [])
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="not valid YAML"):
        read_recipe(tmp_path / "bad.yaml", [])
    (tmp_path / "bad.yaml").write_bytes(b"a: \xff")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / "bad.yaml", [])
    (tmp_path / "bad.yaml").write_text("steps: 3\n")
    with pytest.raises(RecipeError, match="output: it is missing"):
        read_recipe(tmp_path / "bad.yaml", [])


@pytest.mark.parametrize("lacking", [{}, {"data": None}, {"data": []}])
def test_data_counts_where_a_recipe_has_none(recipe, tmp_path, lacking):
    """To train, and to plot with the same arguments; a plot alone needs none."""
    fields = {name: value for name, value in RECIPE.items() if name != "data"}
    recipe.write_text(yaml.safe_dump(fields | lacking))
    with pytest.raises(RecipeError, match="no data: .*--data FILE.jsonl"):
        train(recipe)
    asked = (recipe, ["steps=1"], tmp_path / "data.jsonl")
    assert train(*asked)["steps"] == 1
    assert plot_run(*asked) == plot_run(recipe) == tmp_path / "run" / "loss.png"


def test_the_learning_rate_warms_up_and_falls(recipe):
    fields = read_recipe(recipe, ["steps=100", "warmup_steps=10", "learning_rate=1.0", "final_learning_rate=0.1"])
    rates = [learning_rate(fields, step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_can_be_plotted(recipe, tmp_path):
    with pytest.raises(InputError, match="train first"):
        plot_run(recipe)
    train(recipe)
    # As a run leaves it that is killed in the midst of a line, and one of an earlier version.
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 9, "diffusion": null, "causal": NaN, "values": Infinity}\n{"kind": "tr')
    path = plot_run(recipe)
    assert path == tmp_path / "run" / "loss.png"
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_run_that_begins_anew_leaves_no_rows_of_the_old_one(recipe, tmp_path):
    train(recipe)
    whole = curve(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    shutil.rmtree(tmp_path / "run" / "state")
    train(recipe)
    assert curve(tmp_path / "run") == whole


def test_a_state_is_saved_by_time(recipe, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(run_module, "save_state", lambda *parts: saved.append(parts[-1].step))
    train(recipe, ["save_every=1000", "eval_every=1000", "output=rarely"])
    assert saved == [8]
    train(recipe, ["save_every=1000", "eval_every=1000", "save_minutes=1e-9"])
    assert saved == [8, *range(1, 9)]


def test_the_best_checkpoint_and_its_loss_are_saved_together(recipe, tmp_path, monkeypatch):
    """A run that is killed after an evaluation goes on with the loss to beat, whatever it then finds."""
    steps = run_module._Trainer._step

    def killed(self, step):
        if step == 5:
            raise KeyboardInterrupt
        return steps(self, step)

    monkeypatch.setattr(run_module._Trainer, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, ["save_every=1000"])
    [(step, loss)] = curve(tmp_path / "run", "held_out")
    saved = json.loads((tmp_path / "run" / "state" / "progress.json").read_text())
    assert (saved["step"], saved["evaluated"]) == (step, step) == (4, 4)
    assert saved["best_loss"] == pytest.approx(loss, rel=1e-5)


def test_a_checkpoint_that_is_being_replaced_stays_whole(recipe, tmp_path, monkeypatch):
    train(recipe, ["steps=2"])
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()

    def torn(tensors, path, metadata):
        Path(path).write_bytes(before[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr("redraft.checkpoint.save.save_file", torn)
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    for name in ("model", "last"):
        assert (tmp_path / "run" / name / "model.safetensors").read_bytes() == before


def test_without_held_out_rows_nothing_that_is_written_is_infinite(recipe, tmp_path):
    result = train(recipe, ["held_out=0"])
    assert result["best_loss"] is None
    assert Path(result["model"]).exists()
    progress = (tmp_path / "run" / "state" / "progress.json").read_text()
    assert json.loads(progress)["best_loss"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_logged_as_null(recipe, tmp_path, monkeypatch, value, capsys):
    loss_of = run_module.loss_of

    def broken(*given):
        loss, parts = loss_of(*given)
        return loss, parts | {"values": torch.tensor(value)}

    monkeypatch.setattr(run_module, "loss_of", broken)
    train(recipe)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert {row["values"] for row in rows if row["kind"] != "noise"} == {None}
    said = capsys.readouterr().err
    assert "diffusion" in said
    assert not {"nan", "inf", "values"} & set(said.replace(",", " ").split())


def test_batches_from_other_processes_are_the_same(recipe, tmp_path):
    """Over epochs of several processes, and from the middle of one on."""
    train(recipe, ["steps=4", "learning_rate=0.001", "final_learning_rate=0.001"])
    train(recipe, ["steps=16", "learning_rate=0.001", "final_learning_rate=0.001", "workers=2"])
    train(recipe, ["steps=16", "learning_rate=0.001", "final_learning_rate=0.001", "output=here"])
    assert curve(tmp_path / "run") == curve(tmp_path / "here")


def test_a_process_that_ends_is_named(recipe, tmp_path, capfd):
    train(recipe, ["steps=1"])
    fields = read_recipe(recipe, ["workers=1"])
    opening = partial(open_stream, fields, tmp_path / "run" / "model", 24, 1)
    lost = partial(open_stream, fields, tmp_path / "none", 24, 1)
    prefetch = Prefetch(lost, opening(), 0, Stop())
    with pytest.raises(GenerationError, match="a process that makes batches has ended"):
        prefetch.batch(0)
    prefetch.close()
    assert "none needs a tokenizer.json" in capfd.readouterr().err
