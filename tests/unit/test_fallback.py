"""What stands in for a kernel that does not run, for how long and for which form; and where a launch goes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from pretended import Cards, Pretended
from redraft.kernels import accelerator
from redraft.kernels.triton import fallback
from redraft.kernels.triton.fallback import attempt


@pytest.fixture(autouse=True)
def nothing_has_failed(monkeypatch):
    monkeypatch.setattr(fallback, "_failed", set())


def fails():
    raise ValueError("no such instruction\nand more")


def test_a_form_that_fails_leaves_the_others_alone():
    with pytest.warns(UserWarning, match="head int8 does not run here.*no such instruction$"):
        assert attempt("head", fails, lambda: "torch", "int8") == "torch"
    assert attempt("head", lambda: "fast", lambda: "torch", torch.bfloat16) == "fast"
    assert attempt("head", lambda: "fast", lambda: "torch", "int8") == "torch", "not tried again"
    assert fallback.failed() == ["head int8"]
    fallback.clear()
    assert attempt("head", lambda: "fast", lambda: "torch", "int8") == "fast"
    assert fallback.failed() == []


def test_a_kernel_goes_to_the_device_of_its_first_tensor(monkeypatch):
    pytest.importorskip("triton")
    target = importlib.import_module("redraft.kernels.triton.target")
    cards, launched = Cards(), []
    monkeypatch.setattr(torch, "get_device_module", lambda _: cards)

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launched.append(cards.at)

    for index in (1, 0):
        there = Pretended(torch.ones(2), torch.device("cuda", index))
        target.launch(Kernel(), (1,), 3, there, torch.ones(1))
    assert launched == [1, 0]
    assert cards.at == 0
    target.launch(Kernel(), (1,), torch.ones(1))
    assert launched[-1] == 0


def test_what_a_gpu_multiplies_is_asked_of_that_gpu(monkeypatch):
    pytest.importorskip("triton")
    target = importlib.import_module("redraft.kernels.triton.target")
    cards = Cards()
    monkeypatch.setattr(torch, "get_device_module", lambda _: cards)
    monkeypatch.setattr(target, "interpreted", lambda: False)
    asked = SimpleNamespace(get_current_target=lambda: SimpleNamespace(backend="cuda", arch=[80, 90][cards.at]))
    monkeypatch.setattr(target.triton.runtime, "driver", SimpleNamespace(active=asked))
    assert target.target_of(torch.device("cuda", 1)) == ("cuda", 90)
    assert target.target_of(torch.device("cuda", 0)) == ("cuda", 80)


def test_the_current_device_is_left_alone_where_there_is_one():
    with accelerator.current(torch.device("cpu")), accelerator.current(torch.device("mps", 0)):
        pass


@pytest.mark.parametrize(
    ("device", "double", "eight"), [("cpu", True, True), ("meta", True, True), ("mps", False, False)]
)
def test_what_a_kind_of_device_holds(device, double, eight):
    assert accelerator.has_float64(torch.device(device)) == double
    assert accelerator.has_float8(torch.device(device)) == eight


def test_an_intel_gpu_is_asked(monkeypatch):
    for answer in (False, True):
        properties = SimpleNamespace(has_fp64=answer)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _, found=properties: found)
        assert accelerator.has_float64(torch.device("xpu")) == answer


def test_what_is_held_to_nothing_needs_no_patterns():
    """As on a machine with torch, and little else."""
    program = """
import sys
for name in ("pydantic", "fastapi", "uvicorn", "typer", "prometheus_client", "yaml"):
    sys.modules[name] = None
import redraft
engine = redraft.load("mini", dtype="float32", threads=1)
print(engine.generate("play some jazz", seed=0, tools=None).finish_reason)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["tool_calls"], done.stderr[-1500:]
