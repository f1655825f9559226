"""A run that is judged by replies of its own, and what it leaves behind when it ends badly or goes on as another."""

from __future__ import annotations

import errno
import json

import pytest
import torch
import yaml

from redraft.cli import main
from redraft.cli.train_judge import judge
from redraft.core.errors import CheckpointError, LossError, RecipeError
from redraft.train import run as run_module
from redraft.train import state as state_module
from redraft.train.judging import is_better
from redraft.train.run import train
from tiny_recipe import conversation, write_recipe


def rows_of(output, kind):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run of adapters on mini with every canvas of every turn, its log and result."""
    path = tmp_path_factory.mktemp("judged")
    recipe = write_recipe(
        path, init="mini", model=None, tokenizer=None, canvases="all", packing=True, grader="exact", judge_rows=3,
        adapter={"rank": 2}, steps=2, eval_every=1, batch_size=4, rollout=0.5, rollout_steps=2,
    )  # fmt: skip
    return path, train(recipe, judge=judge)


def test_every_evaluation_asks_and_looks_at_fixed_noise(judged):
    path, result = judged
    measures = rows_of(path / "run", "judged")
    assert [row["step"] for row in measures] == [1, 2]
    assert set(measures[0]) == {"kind", "step", "quality", "quality_causal", "steps", "at_cap", "empty"}
    assert result["best_quality"] == max(row["quality"] for row in measures)
    noise = rows_of(path / "run", "noise")
    assert [(row["t"], row["signal"]) for row in noise if row["step"] == 1] == [
        (t, signal) for t in (0.05, 0.25, 0.5, 0.75, 0.95, 1.0) for signal in (0.0, 1.0)
    ]
    assert noise[-1]["kept"] is None, "at t = 1 nothing stands as it is"
    assert noise[0]["loss"] < noise[-2]["loss"]
    train_row = rows_of(path / "run", "held_out")[0]
    assert train_row["content"] > train_row["fill"] > 0


def test_judging_changes_nothing_that_is_learned(judged, tmp_path):
    path, _ = judged
    train(path / "recipe.yaml", ["grader=none", f"output={tmp_path / 'unjudged'}"])
    for name in ("last/adapter_model.safetensors", "state/state.safetensors"):
        assert (tmp_path / "unjudged" / name).read_bytes() == (path / "run" / name).read_bytes()


def test_the_best_checkpoint_is_the_best_judged(tmp_path):
    said = iter([0.5, 0.9, 0.9, 0.2])
    recipe = write_recipe(tmp_path, steps=4, eval_every=1, grader="calls")
    kept = []

    def measures(model, asked):
        assert asked.rows[0].messages[-1]["role"] == "assistant"
        assert (asked.directory / "tokenizer.json").exists()
        kept.append(next(said))
        return {"quality": kept[-1]}

    result = train(recipe, judge=measures)
    assert result["best_quality"] == 0.9
    losses = [row["loss"] for row in rows_of(tmp_path / "run", "held_out")]
    assert result["best_loss"] == pytest.approx(min(losses[1:3]), rel=1e-4)
    saved = json.loads((tmp_path / "run" / "state" / "progress.json").read_text())
    assert saved["best_quality"] == 0.9


def test_what_is_better():
    assert is_better(1.0, None, 2.0, None)
    assert not is_better(2.0, None, 1.0, None)
    assert is_better(9.0, 0.1, 1.0, None)
    assert is_better(9.0, 0.2, 1.0, 0.1)
    assert is_better(1.0, 0.2, 2.0, 0.2)
    assert not is_better(1.0, 0.1, 2.0, 0.2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"held_out": 0.0}, "needs rows that are held out"), ({"judge_rows": 0}, "judge_rows: .*; it is 0")],
)
def test_nothing_to_judge(tmp_path, changes, reason):
    with pytest.raises(RecipeError, match=reason):
        train(write_recipe(tmp_path, grader="exact", **changes), judge=judge)
    with pytest.raises(RecipeError, match="needs a judge"):
        train(write_recipe(tmp_path, grader="exact"))


@pytest.mark.parametrize("step", [1, 4])
def test_a_loss_that_is_no_number_ends_the_run_and_names_its_rows(tmp_path, monkeypatch, capsys, step):
    recipe = write_recipe(tmp_path, save_every=100, eval_every=100)
    loss_of, calls = run_module.loss_of, []

    def broken(*given):
        calls.append(given)
        loss, parts = loss_of(*given)
        return (loss * float("nan") if len(calls) == step else loss), parts

    monkeypatch.setattr(run_module, "loss_of", broken)
    assert main(["train", str(recipe)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"the loss of step {step} is nan, of {tmp_path}/data.jsonl, lines " in said
    monkeypatch.undo()
    if step == 1:
        assert "nothing had been saved" in said
        return
    assert "the state of step 3 in" in said
    whole = train(recipe, ["output=whole", "save_every=100", "eval_every=100"])
    train(recipe)
    left, right = ((tmp_path / name / "state" / "state.safetensors").read_bytes() for name in ("run", "whole"))
    assert left == right
    assert whole["steps"] == 8


def test_on_an_accelerator_it_is_found_before_anything_is_saved(tmp_path, monkeypatch):
    from redraft.train.endings import Finite

    finite = Finite(lambda step: f"rows of {step}")
    meta = type("Loss", (), {"device": torch.device("cuda"), "__float__": lambda self: float("inf")})()
    finite.add(6, meta, torch.tensor(1.0))
    with pytest.raises(LossError, match="the loss of step 7 is inf, of rows of 6") as caught:
        finite.check()
    assert caught.value.step == 7
    finite.check()


@pytest.mark.parametrize("where", ["state", "log"])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, capsys, where):
    recipe = write_recipe(tmp_path, save_every=2, eval_every=100)
    train(recipe, ["steps=2"])
    before = (tmp_path / "run" / "state" / "state.safetensors").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "state":
        monkeypatch.setattr(state_module, "write_safetensors", full)
    else:
        monkeypatch.setattr("redraft.train.watching.append_row", full)
    assert main(["train", str(recipe)]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"no space is left for {tmp_path}/run: the state of step 2 and the best checkpoint are whole" in said
    assert (tmp_path / "run" / "state" / "state.safetensors").read_bytes() == before
    assert not (tmp_path / "run" / "state.new").exists()
    monkeypatch.undo()
    assert train(recipe)["steps"] == 8


def test_going_on_as_another_run_is_refused_with_what_differs(tmp_path, capsys):
    recipe = write_recipe(tmp_path, steps=2)
    train(recipe)
    data = tmp_path / "data.jsonl"
    rows = data.read_text()
    with pytest.raises(CheckpointError) as caught:
        train(recipe, ["steps=3", "learning_rate=0.5", "batch_size=2", "eval_every=3"])
    said = str(caught.value)
    assert "belongs to another run: batch_size was 8 and is 2; learning_rate was 0.002 and is 0.5: " in said
    assert "eval_every" not in said
    data.write_text(rows + json.dumps(conversation(1)) + "\n")
    with pytest.raises(CheckpointError, match=f"{data} has changed: "):
        train(recipe, ["steps=3"])
    data.write_text(rows)
    template = tmp_path / "run" / "initial" / "chat_template.jinja"
    text = template.read_text()
    template.write_text(text + "{# another #}")
    with pytest.raises(CheckpointError, match="the chat template has changed"):
        train(recipe, ["steps=3"])
    template.write_text(text)
    assert train(recipe, ["steps=3"])["steps"] == 3
    # The same data in another place are the same.
    moved = tmp_path / "moved.jsonl"
    moved.write_text(rows)
    assert train(recipe, ["steps=4"], moved)["steps"] == 4


def test_another_base_is_refused(tmp_path):
    base = write_recipe(tmp_path, steps=1)
    train(base)
    fields = yaml.safe_load(base.read_text()) | {"init": "run/model", "output": "warm", "adapter": {"rank": 2}}
    recipe = tmp_path / "warm.yaml"
    recipe.write_text(yaml.safe_dump({k: v for k, v in fields.items() if k not in ("model", "tokenizer")}))
    train(recipe)
    train(base, ["steps=2"])
    with pytest.raises(CheckpointError, match="the base has changed"):
        train(recipe, ["steps=2"])


def test_bad_rows_are_left_out_where_that_is_wanted(tmp_path, capsys):
    recipe = write_recipe(tmp_path, steps=1)
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"text": "hi"}\n')
        file.write(json.dumps({"messages": [{"role": "tool", "content": "1"}, *conversation(1)["messages"]]}) + "\n")
    assert main(["train", str(recipe)]) == 2
    assert "data.jsonl, line 65: is no conversation" in capsys.readouterr().err
    assert train(recipe, ["skip_bad=true"])["rows_bad"] == 2
    assert "2 rows cannot be used and are left out; the first: " in capsys.readouterr().err


def test_a_file_may_be_held_out_by_its_own_share(tmp_path):
    from redraft.train.data import read_parts
    from redraft.train.recipe import read_recipe

    recipe = write_recipe(tmp_path)
    sources = "[{path: data.jsonl, held_out: 0}, {path: data.jsonl}]"
    first, second = read_parts(read_recipe(recipe, [f"data={sources}"]))
    assert (len(first.train), len(first.held_out)) == (64, 0)
    assert 0 < len(second.held_out) < 64


def test_figures_go_to_boards(tmp_path, monkeypatch):
    import sys
    import types

    told, ended = [], []
    run = types.SimpleNamespace(
        log=lambda figures, step: told.append((step, figures)), finish=lambda: ended.append(True)
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **how: told.append(how) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    train(write_recipe(tmp_path, steps=2, eval_every=2), ["watch=[wandb]"])
    assert told[0]["mode"] == "offline"
    assert told[1][0] == 1
    assert "train/loss" in told[1][1]
    assert any("noise/loss/t=0.5/signal" in figures for _, figures in told[1:])
    assert ended == [True]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match=r"wandb is not installed: pip install 'redraft\[watch\]'"):
        train(write_recipe(tmp_path, steps=3), ["watch=[wandb]", "output=other"])
