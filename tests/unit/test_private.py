"""Names that torch does not promise: who asks for one does without it, after one warning."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

import redraft
from redraft.kernels import int8, integers, private
from redraft.placement.device import auto_dtype
from redraft.train import state

SOURCE = Path(redraft.__file__).parent
CPU = torch.device("cpu")


@pytest.fixture
def nothing_private(monkeypatch):
    """A torch that has dropped all of them."""
    monkeypatch.setattr(private, "private", lambda name, instead: None)
    for module in (int8, integers, state, __import__("redraft.placement.device", fromlist=["x"])):
        monkeypatch.setattr(module, "private", lambda name, instead: None)


def test_one_warning_says_what_is_done_instead():
    with pytest.warns(UserWarning, match=r"torch .* has no _of_tomorrow\.at_all: it is done by hand$"):
        assert private.private("_of_tomorrow.at_all", "it is done by hand") is None
    assert private.private("_of_tomorrow.at_all", "it is done by hand") is None, "pytest makes a warning an error"
    assert private.private("_int_mm", "") is torch._int_mm


def test_everything_runs_without_them(nothing_private):
    assert auto_dtype(CPU) == torch.float32
    assert not int8.has_exact_products.__wrapped__()
    assert not integers.has_integer_mm.__wrapped__()
    assert not integers.has_device_products.__wrapped__(torch.device("cuda"))


def test_an_average_is_the_same_without_them(monkeypatch):
    model = torch.nn.Module()
    model.backbone, model.tower = torch.nn.Linear(3, 2), None
    averages = []
    for without in (False, True):
        average = state.Average(model, 0.5)
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            if without:
                patch.setattr(state, "private", lambda name, instead: None)
            model.backbone.weight += 1
            average.update(model, 7)
            model.backbone.weight -= 1
        averages.append(average.values["weight"])
    assert torch.equal(*averages)


def test_no_other_place_names_one():
    """`torch._x`, `torch.a._x` or `torch.ops.x` outside of `private` would be an error without a word of why."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                name = ast.unparse(node)
                if re.fullmatch(r"torch\.(ops\..*|([\w.]+\.)?_[^_]\w*)", name):
                    found.append((path.name, name))
    assert found == []
