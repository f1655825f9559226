"""`redraft train` of an adapter: it alone learns and is written, goes on with the same bits, bases of any form."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import redraft
from redraft.adapters.attach import attach
from redraft.adapters.merge import merge
from redraft.adapters.read import read_adapter
from redraft.checkpoint.convert import quantize
from redraft.checkpoint.rounding import RECIPES
from redraft.cli import main
from redraft.core.errors import InputError, RecipeError
from redraft.train import run as run_module
from redraft.train.run import train
from tiny_recipe import write_recipe

ADAPTER = {
    "targets": ["attention", "dense", "experts", "self_conditioning"],
    "rank": 4,
    "alpha": 8,
    "rank_pattern": {"experts": 2},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model made from scratch by the same recipe, that has learnt a little."""
    directory = tmp_path_factory.mktemp("base")
    train(write_recipe(directory, steps=4))
    return directory / "run" / "model"


def recipe_for(tmp_path, base, **changes):
    fields = {"init": str(base), "adapter": ADAPTER, "model": None, "tokenizer": None, "learning_rate": 0.01}
    return write_recipe(tmp_path, **fields | changes)


def losses(output, kind="train"):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == kind]


def test_an_adapter_learns_alone_and_is_written(base, tmp_path):
    before = {path.name: path.read_bytes() for path in base.glob("*.safetensors")}
    result = train(recipe_for(tmp_path, base, steps=12, eval_every=6))
    assert "model" not in result
    assert not (tmp_path / "run" / "model").exists()
    assert {path.name: path.read_bytes() for path in base.glob("*.safetensors")} == before
    model = redraft.load_model(base)
    adapter = read_adapter(result["adapter"], model.config)
    assert adapter.is_one
    assert adapter.base["form"] == "float"
    assert adapter.encode["layers.0.experts.down_proj"].a.shape[1] == 2
    assert all(float(pair.b.abs().max()) > 0 for pair in adapter.denoise.values())
    held_out = losses(tmp_path / "run", "held_out")
    assert held_out[-1] < held_out[0]
    # The state holds no base.
    names = load_file(tmp_path / "run" / "state" / "state.safetensors")
    assert not [name for name in names if "base" in name or "norm" in name]
    attach(model, adapter)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "muon"}, {"adapter": ADAPTER | {"targets": ["dense"], "dropout": 0.2, "rank_pattern": {}}}],
)
def test_a_run_that_was_interrupted_ends_with_the_same_bytes(base, tmp_path, monkeypatch, changes):
    recipe = recipe_for(tmp_path, base, steps=6, eval_every=6, **changes)
    train(recipe)
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
    assert losses(tmp_path / "again") == losses(tmp_path / "run")
    for name in ("adapter", "last"):
        first, second = (tmp_path / run / name / "adapter_model.safetensors" for run in ("run", "again"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_a_base_may_be_quantised(base, tmp_path, form):
    """Rounded as it loads, or stored so: the same run."""
    quantize(base, tmp_path / "small", RECIPES[form])
    recipe = recipe_for(tmp_path, base, steps=3, eval_every=3, rollout=0.5, rollout_steps=2)
    train(recipe, [f"adapter.quantize={form}"])
    train(recipe, [f"init={tmp_path / 'small'}", "output=stored"])
    left, right = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("run", "stored"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert read_adapter(tmp_path / "run" / "adapter", redraft.load_model(base).config).base["form"] == form


def test_passes_in_bfloat16_have_factors_in_float32(base, tmp_path):
    train(recipe_for(tmp_path, base, steps=3, precision="bfloat16"))
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert any((tensor != tensor.bfloat16().float()).any() for tensor in tensors.values())


def test_an_adapter_of_self_conditioning_alone(base, tmp_path):
    """Where a batch has no signal it learns nothing, and the run goes on."""
    adapter = {"targets": ["self_conditioning"]}
    train(recipe_for(tmp_path, base, steps=3, batch_size=1, self_conditioning=0.3, adapter=adapter, draws=1))
    assert len(losses(tmp_path / "run")) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": {"rank": 0}}, "adapter: rank must be an integer of at least 1, got 0"),
        ({"adapter": {"targets": ["q"]}}, "adapter: target 'q' is no module here"),
        ({"adapter": {"kind": "dora"}}, "adapter: an adapter of kind 'dora' is not offered"),
        ({"adapter": {"targets": ["embed_tokens"]}}, "adapter: target 'embed_tokens' is not offered"),
        ({"adapter": {"ranks": 4}}, "adapter.ranks: a recipe has no such field"),
        ({"adapter": {"quantize": "int3"}}, "adapter.quantize:"),
        ({"init": None}, "give either init, or model and tokenizer"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused_in_one_line(base, tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        train(recipe_for(tmp_path, base, **changes))
    assert isinstance(caught.value, RecipeError)
    assert "\n" not in str(caught.value)


def test_the_command_says_how_it_is_merged(base, tmp_path, capsys):
    assert main(["train", str(recipe_for(tmp_path, base, steps=1))]) == 0
    said = capsys.readouterr()
    assert f"redraft merge {tmp_path}/run/adapter --base" in said.err.replace("\n", "")
    assert "merge_config" in said.err
    assert main(["merge", str(tmp_path / "run" / "adapter"), "--base", str(base), "--out", str(tmp_path / "out")]) == 0
    reply = redraft.load(tmp_path / "out", threads=1).generate("please call Ann on Monday", max_new_tokens=8, seed=1)
    assert reply.text is not None


def test_an_engine_with_an_adapter_is_the_merged_model(base, tmp_path, capsys):
    """`load`, in this process and in workers, and `redraft run`: the same reply as the merged checkpoint's."""
    train(recipe_for(tmp_path, base, steps=3))
    adapter = str(tmp_path / "run" / "adapter")
    merge(adapter, base, tmp_path / "merged")
    # What it knows by heart goes with it.
    assert (tmp_path / "merged" / "tools.json").exists()
    asked = {"max_new_tokens": 24, "seed": 3}
    texts = [
        redraft.load(directory, threads=1, dtype="float32", **more).generate("please call Bob on Friday", **asked).text
        for directory, more in ((base, {"adapter": adapter}), (tmp_path / "merged", {}), (base, {}))
    ]
    assert texts[0] == texts[1] != texts[2]
    words = ["run", "please call Bob on Friday", "--model", str(base), "--adapter", adapter, "--threads", "1"]
    assert main([*words, "--dtype", "float32", "--max-new-tokens", "24", "--seed", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == texts[0]
    assert main([*words[:4], "--adapter", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("redraft: ")
