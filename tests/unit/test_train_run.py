"""A whole small training run: tokenizer, loss curve, interruption, resume, warm start, errors."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml

import redraft
from redraft.core.errors import DataError, GenerationError, RecipeError
from redraft.train import run as run_module
from redraft.train.data import open_stream
from redraft.train.prefetch import Prefetch
from redraft.train.recipe import read_recipe
from redraft.train.run import learning_rate, train

TEMPLATE = Path(__file__).parent.parent.parent / "recipes" / "mini" / "chat_template.jinja"
RECIPE = {
    "output": "run",
    "data": [{"path": "data.jsonl"}],
    "model": {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "global_head_dim": 16,
        "num_global_key_value_heads": 1,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "canvas_length": 24,
    },
    "tokenizer": {"vocab_size": 420, "chat_template": str(TEMPLATE)},
    "augment": {"swap": 0.5, "random_words": 0.2},
    "steps": 8,
    "batch_size": 8,
    "warmup_steps": 2,
    "eval_every": 4,
    "save_every": 2,
    "log_every": 1,
    "held_out": 0.2,
    "trim_fill": 0.5,
    "threads": 1,
}
NAMES = ["Ann", "Bob", "Cleo", "Dora", "Ed", "Fay", "Gus", "Hal"]


def conversation(i):
    name, day = NAMES[i % 8], ["Monday", "Friday"][i // 8 % 2]
    call = {"type": "function", "function": {"name": "Call", "arguments": {"who": name, "day": day}}}
    messages = [
        {"role": "user", "content": f"please call {name} on {day}"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    if i % 5 == 0:
        messages += [{"role": "user", "content": "thanks"}, {"role": "assistant", "content": "You are welcome."}]
    return {"messages": messages}


@pytest.fixture
def recipe(tmp_path):
    rows = [json.dumps(conversation(i)) for i in range(64)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


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
    resumed = curve(tmp_path / "again")
    # Steps 1-5, then again from the checkpoint at 4.
    assert resumed[:5] == whole[:5]
    assert resumed[5:] == whole[4:]
    assert curve(tmp_path / "again", "held_out")[-1] == curve(tmp_path / "run", "held_out")[-1]


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
    ],
)
def test_a_recipe_that_cannot_work(recipe, override, reason):
    with pytest.raises(RecipeError, match=reason):
        read_recipe(recipe, [override])


def test_a_recipe_that_is_none(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(tmp_path / "none.yaml", [])
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="not valid YAML"):
        read_recipe(tmp_path / "bad.yaml", [])


def test_the_learning_rate_warms_up_and_falls(recipe):
    fields = read_recipe(recipe, ["steps=100", "warmup_steps=10", "learning_rate=1.0", "final_learning_rate=0.1"])
    rates = [learning_rate(fields, step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_can_be_plotted(recipe, tmp_path):
    from redraft.core.errors import InputError
    from redraft.train.plot import plot_run

    with pytest.raises(InputError, match="train first"):
        plot_run(recipe)
    train(recipe)
    path = plot_run(recipe)
    assert path == tmp_path / "run" / "loss.png"
    assert path.read_bytes()[:4] == b"\x89PNG"


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
    prefetch = Prefetch(lost, opening(), 0)
    with pytest.raises(GenerationError, match="a process that makes batches has ended"):
        prefetch.batch(0)
    prefetch.close()
    assert "none needs a tokenizer.json" in capfd.readouterr().err
