"""Training on an accelerator, as far as a machine without one can tell: devices never mix, the host never waits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from checkpoints import CANVAS, VOCAB, write_checkpoint
from redraft.checkpoint.load import load_model
from redraft.core.errors import RecipeError
from redraft.kernels import experts as experts_module
from redraft.kernels.cross_entropy import weighted_cross_entropy
from redraft.kernels.experts import every_expert, experts
from redraft.train import ahead as ahead_module
from redraft.train import objective as objective_module
from redraft.train.collate import Weights, collate
from redraft.train.examples import Example
from redraft.train.objective import Objective, loss_of
from redraft.train.optimizer import make_optimizers
from redraft.train.precision import Working
from redraft.train.recipe import Recipe, read_recipe
from redraft.train.run import _Trainer, train
from redraft.train.state import Average, load_state

TEMPLATE = Path(__file__).parent.parent.parent / "recipes" / "mini" / "chat_template.jinja"
SHAPE = {
    "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "global_head_dim": 16, "num_global_key_value_heads": 1, "num_experts": 4, "top_k_experts": 2,
    "moe_intermediate_size": 16, "num_hidden_layers": 2, "canvas_length": 24,
}  # fmt: skip


class OneDevice(TorchDispatchMode):
    """Fails where an operator meets tensors of two devices and is not the copy from one to the other. A number in a
    0-d tensor of the host goes with any device."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = 0
        self.operators: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors if x.ndim or x.device.type != "cpu"}
        name = str(func)
        if name.startswith("aten._to_copy"):
            (came,) = devices
            assert not (came == "meta" and out.device.type == "cpu"), "a copy to the host"
            self.moves += came != out.device.type
        else:
            assert len(devices) < 2, f"{name} on {devices}"
        if "meta" in devices:
            self.operators.add(name)
        return out


def examples():
    lengths = ((5, 4), (9, 6), (3, CANVAS + 2), (30, 3))
    return [
        Example(
            [(7 * i + n) % VOCAB for i in range(n)],
            [(5 * i + m) % VOCAB for i in range(m)],
            [j % 2 == 1 for j in range(m)],
        )
        for n, m in lengths
    ]


def batch():
    return collate(examples(), CANVAS, 1, np.random.default_rng(0), weights=Weights(value=3.0, prompt=0.0))


class OneBatch:
    """A stream of one batch."""

    def batch(self, step):
        return batch()

    def rows_of(self, step):
        return "a row"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("device"))


def step_recipe(tmp_path, **fields):
    return Recipe.model_validate(
        {"output": tmp_path, "data": [{"path": "none"}], "init": "none", "steps": 9, "optimizer": "muon"} | fields
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_stays_on_its_device_and_never_asks_it(directory, tmp_path, precision):
    """On the meta device nothing has a value, so that whoever asks for one fails."""
    model = load_model(directory).requires_grad_(True).to("meta")
    model.backbone.build_rotary("meta")
    recipe = step_recipe(
        tmp_path, precision=precision, dropout=0.1, draws=2, self_conditioning=0.9, rollout=1.0, rollout_steps=3
    )
    trainer = _Trainer(recipe, model, OneBatch())
    with OneDevice() as seen:
        figures, tokens = trainer._step(0)
        trainer._step(1)
    assert tokens == int(batch().lengths.sum()) + 4 * CANVAS
    assert all(x.device.type == "meta" for x in figures.values() if isinstance(x, torch.Tensor))
    assert isinstance(figures["loss"], torch.Tensor)
    assert all(p.grad.dtype == torch.float32 for p in model.backbone.parameters())
    assert seen.moves > 10
    assert any("lerp" in name for name in seen.operators), "the optimizers ran there too"


def test_the_proof_can_fail():
    with OneDevice(), pytest.raises(AssertionError, match="aten.index"):
        torch.empty(5, device="meta")[torch.tensor([1, 2])]
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((torch.empty(5, device="meta") > 0).any())


def test_every_expert_is_the_mixture():
    torch.manual_seed(0)
    x = torch.randn(11, 6, requires_grad=True)
    gate_up, down = torch.randn(5, 8, 6, requires_grad=True), torch.randn(5, 6, 4, requires_grad=True)
    weight = torch.rand(11, 2, requires_grad=True)
    index = torch.tensor([[0, 3]] * 10 + [[4, 0]])
    leaves, gradient = (x, gate_up, down, weight), torch.randn(11, 6)
    expected, got = (form(x, index, weight, gate_up, down) for form in (experts, every_expert))
    assert torch.allclose(got, expected, atol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(got, leaves, gradient), torch.autograd.grad(expected, leaves, gradient), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_a_large_mixture_is_still_grouped(monkeypatch):
    monkeypatch.setattr(experts_module, "_EVERY_COLUMNS", 39)
    index = torch.zeros(3, 1, dtype=torch.long, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        # Grouping counts rows on the host.
        experts(
            torch.empty(3, 6, device="meta"), index, torch.empty(3, 1, device="meta"),
            torch.empty(5, 8, 6, device="meta"), torch.empty(5, 6, 4, device="meta"),
        )  # fmt: skip


def test_settled_rows_change_nothing_whether_they_stay_or_leave(directory, monkeypatch):
    """A CPU leaves rows out once they have settled, an accelerator keeps them: the scored canvases are the same."""
    model = load_model(directory).requires_grad_(True)
    whole, rows = objective_module.denoise, []
    plan = Objective(self_conditioning=1.0, rollout=1.0, rollout_steps=6, draws=4)
    # Every second row settles at every step.
    monkeypatch.setattr(
        ahead_module,
        "stable_and_confident",
        lambda _, argmax, entropy, __: argmax.sum(-1) % 2 == 0,
    )
    scored = []

    def denoise(model, canvas, soft, behind):
        rows.append(len(canvas))
        if torch.is_grad_enabled():
            scored.append((canvas, soft))
        return whole(model, canvas, soft, behind)

    for module in (objective_module, ahead_module):
        monkeypatch.setattr(module, "denoise", denoise)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        loss_of(model, batch(), generator, plan)
        after = torch.rand((), generator=generator)
        left, left_rows = scored.pop(), list(rows)
        rows.clear()
        monkeypatch.setattr(ahead_module, "DROPS_SETTLED", ())
        generator = torch.Generator().manual_seed(seed)
        loss_of(model, batch(), generator, plan)
        assert torch.rand((), generator=generator) == after, "the same draws have been made"
        stayed = scored.pop()
        assert torch.equal(left[0], stayed[0])
        assert torch.allclose(left[1], stayed[1], atol=1e-3), (left[1] - stayed[1]).abs().amax((1, 2))
        assert set(rows) == {16}
        rows.clear()
        monkeypatch.setattr(ahead_module, "DROPS_SETTLED", ("cpu",))
        if len(left_rows) > 3:
            assert min(left_rows) < 16


def test_cross_entropy_in_bfloat16_sums_in_float32():
    generator = torch.Generator().manual_seed(0)
    hidden, embedding = torch.randn(3000, 12, generator=generator), torch.randn(37, 12, generator=generator)
    targets, weight = torch.randint(37, (3000,), generator=generator), torch.full((3000,), 1 / 3000)
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [x.detach().to(dtype, copy=True).requires_grad_() for x in (hidden, embedding)]
        loss, _ = weighted_cross_entropy(*leaves, targets, weight, 30.0)
        assert loss.dtype == torch.float32
        loss.backward()
        grads.append(leaves[1].grad.float())
    error = (grads[1] - grads[0]).norm() / grads[0].norm()
    assert float(error) < 0.01


def test_masters_keep_what_bfloat16_cannot_hold(directory):
    masters = load_model(directory).requires_grad_(True)
    working = Working(masters, torch.bfloat16)
    assert working.model.dtype == torch.bfloat16
    assert working.model.backbone.frequencies_0.dtype == torch.float32
    weight, copied = masters.backbone.norm.weight, working.model.backbone.norm.weight
    with torch.no_grad():
        weight.fill_(1.0)
    for _ in range(16):
        with torch.no_grad():
            weight.add_(2.0**-11)
        working.refresh()
    assert torch.equal(copied, torch.full_like(copied, 1 + 2.0**-7)), "sixteen steps too small for it make one"
    assert float(weight[0].detach()) == 1 + 2.0**-7
    assert Working(masters, torch.float32).model is masters


def conversation(i):
    name, day = ["Ann", "Bob", "Cleo", "Dora"][i % 4], ["Monday", "Friday"][i // 4 % 2]
    call = {"type": "function", "function": {"name": "Call", "arguments": {"who": name, "day": day}}}
    return {"messages": [
        {"role": "user", "content": f"please call {name} on {day}"}, {"role": "assistant", "tool_calls": [call]},
    ]}  # fmt: skip


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(conversation(i)) + "\n" for i in range(48)))
    path = tmp_path / "recipe.yaml"
    fields = {
        "output": "run", "data": [{"path": "data.jsonl"}], "model": SHAPE,
        "tokenizer": {"vocab_size": 420, "chat_template": str(TEMPLATE)}, "steps": 6, "batch_size": 8,
        "warmup_steps": 2, "eval_every": 6, "save_every": 3, "log_every": 1, "optimizer": "muon", "threads": 1,
        "precision": "bfloat16", "held_out": 0.1,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(fields))
    return path


def curve(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "train"]


def test_bfloat16_learns_what_float32_learns(recipe, tmp_path):
    longer = ["steps=50", "learning_rate=0.01", "eval_every=50", "warmup_steps=5"]
    train(recipe, longer)
    train(recipe, [*longer, "precision=float32", "output=wide"])
    narrow, wide = curve(tmp_path / "run"), curve(tmp_path / "wide")
    assert narrow[0] == pytest.approx(wide[0], rel=0.02)
    assert narrow[0] != wide[0]
    assert narrow[-1] < 0.7 * narrow[0]
    assert narrow[-1] < 1.2 * wide[-1]


def test_a_bfloat16_run_goes_on_with_the_same_curve(recipe, tmp_path):
    # The schedule follows `steps`; a constant rate makes the two comparable.
    constant = ["learning_rate=0.002", "final_learning_rate=0.002", "warmup_steps=0"]
    train(recipe, ["output=whole", *constant])
    train(recipe, ["output=parts", "steps=3", *constant])
    train(recipe, ["output=parts", *constant])
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:.*is a no-op.*:UserWarning")
def test_a_saved_run_is_taken_up_on_another_device(recipe, tmp_path):
    train(recipe)
    model = load_model(tmp_path / "run" / "last").requires_grad_(True).to("meta")
    average, optimizers = (
        Average(model, 0.9),
        make_optimizers(dict(model.backbone.named_parameters()), read_recipe(recipe, [])),
    )
    progress = load_state(tmp_path / "run" / "state", model, average, optimizers)
    assert progress is not None
    assert progress.step == 6
    moments = [tensor for o in optimizers for state in o.state.values() for tensor in state.values()]
    assert moments
    assert all(tensor.device.type == "meta" for tensor in moments)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("device=meta", "device: .*'meta'"),
        ("device=quantum", "device: .*'quantum'"),
        ("precision=float16", "precision"),
    ],
)
def test_a_device_or_precision_that_cannot_be(recipe, override, reason):
    with pytest.raises(RecipeError, match=reason):
        train(recipe, [override])
