"""Devices by one table, and the forms that a plan says would run against those that do."""

from __future__ import annotations

import importlib
import pkgutil
from types import SimpleNamespace

import pytest
import torch

import redraft.kernels
from redraft.bench.plan import kernel_choices
from redraft.bench.shapes import shape_directory
from redraft.checkpoint.load import load_model
from redraft.checkpoint.rounding import RECIPES
from redraft.core.errors import OptionError
from redraft.engine.footprint import FORMS
from redraft.kernels import choice
from redraft.kernels.choice import OPERATIONS, choices
from redraft.kernels.dots import dot_lanes
from redraft.kernels.native import build
from redraft.kernels.native.call import call
from redraft.kernels.triton import fallback
from redraft.placement.device import KINDS, auto_dtype, find_device

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [form.name for form in FORMS]
# Which operation a Triton kernel belongs to; a kernel that is in none would be missing from the table.
OPERATION_OF = {
    "experts_bf16": "experts",
    "experts_int4": "experts",
    "experts_float8": "experts",
    "experts_int8": "experts",
    "dense_int8": "dense",
    "dense_float8": "dense",
    "head": "head",
    "attention": "attention",
    "rms_norm": "norm",
    "norm_add": "norm",
    "norm_heads": "norm",
}
# Experts that divide into int4 blocks.
SHAPE = {"moe_intermediate_size": 32}


def modules():
    """Every module that may pick a form: of the kernels' room outside Triton's, and that of quantised layers."""
    names = [found.name for found in pkgutil.iter_modules(redraft.kernels.__path__) if not found.ispkg]
    names = ["redraft.placement.quantized", *(f"redraft.kernels.{name}" for name in names)]
    return [importlib.import_module(name) for name in names]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield shape_directory("tiny", None, **SHAPE)


def model_of(directory, form, dtype):
    return load_model(directory, dtype=dtype, quantize=form if form in RECIPES else None)


@torch.no_grad()
def step(model):
    """One denoising step with its head."""
    config, ids = model.config, torch.arange(5, 12)[None]
    cache = model.new_cache()
    model.encode(ids, cache)
    canvas = torch.zeros(1, config.canvas_length, dtype=torch.long)
    hidden = model.denoise_hidden(canvas, cache)
    rows = config.canvas_length
    return model.head(hidden, torch.full((1,), 0.7), torch.full((1, rows), 0.5))


def replaced(monkeypatch, name, value):
    for module in modules():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("machine", ["products of its own", "oneDNN and C++", "C++ alone", "oneDNN alone"])
@pytest.mark.parametrize("form", NAMES)
def test_what_runs_on_a_cpu_is_what_the_table_says(directory, monkeypatch, form, machine):
    if machine != "products of its own":
        replaced(monkeypatch, "dot_lanes", lambda: 0)
    if machine == "C++ alone":
        replaced(monkeypatch, "has_exact_products", lambda: False)
    if machine == "oneDNN alone":
        for owner in ("redraft.kernels.native.call", "redraft.kernels.head_tiles", "redraft.kernels.head_product"):
            monkeypatch.setattr(f"{owner}.library", lambda _: None)
    elif build.library("rows") is None:
        pytest.skip("no compiler")
    elif machine == "products of its own" and not dot_lanes():
        pytest.skip("none here")
    dtype = torch.bfloat16 if form == "bfloat16" else torch.float32
    model, called = model_of(directory, form, dtype), set()
    replaced(monkeypatch, "call", lambda name, function, *rest: (called.add(function), call(name, function, *rest)))
    step(model)
    chosen = choices(torch.device("cpu"), form, dtype)
    assert chosen["norm"] == ("C++" if "rms_norm" in called else "torch")
    assert chosen["head"].split(", ")[-1] == ("C++" if "head_tile" in called else "torch")
    assert (chosen["head"] == "C++") == (called >= {"head_tile", "integer_product"})
    assert chosen["attention"] == ("C++" if "attention" in called else "torch")
    packed = {module.packed.layout for module in model.backbone.modules() if hasattr(module, "packed")}
    assert {chosen["dense"]} == {choice._LAYOUTS[layout] for layout in packed or {"plain"}}
    assert (chosen["dense"] == "C++") == bool(called & {"int8_product", "dots_linear"})
    if form == "int4":
        assert chosen["experts"] == ("C++" if "int4_experts" in called else "torch")
    elif form == "int8":
        layouts = {matrix.layout for matrix in model.backbone.layers[0].experts.gate_up}
        assert {chosen["experts"]} == {choice._LAYOUTS[layout] for layout in layouts}
        assert ("dots_experts" in called) == (layouts == {"dots"}) == (machine == "products of its own")
    else:
        assert chosen["experts"] == "torch"


@pytest.mark.parametrize("operands", ["float8", "widened"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("form", NAMES)
def test_what_runs_on_a_gpu_is_what_the_table_says(directory, monkeypatch, form, dtype, operands):
    if form in ("bfloat16", "float32") and form != str(dtype).removeprefix("torch."):
        pytest.skip("no such model")
    # What a CPU has of its own, layouts included, is no choice of a GPU.
    replaced(monkeypatch, "runs_natively", lambda *_, **__: False)
    replaced(monkeypatch, "has_exact_products", lambda: False)
    replaced(monkeypatch, "dot_lanes", lambda: 0)
    reached = set()
    replaced(monkeypatch, "on_gpu", lambda *_: True)
    replaced(monkeypatch, "attempt", lambda name, fast, reference, form="": (reached.add(name), reference())[1])
    model = model_of(directory, form, dtype)
    # What loading has tried.
    reached.clear()
    step(model)
    monkeypatch.setattr(choice, "_float8_operands", lambda _: operands)
    # A tensor that holds nothing is on no CPU, and is there on every machine.
    chosen = choices(torch.device("meta"), form, dtype)
    found = {OPERATION_OF[name] for name in reached}
    assert {operation for operation, runs in chosen.items() if runs.startswith("Triton")} == found
    widened = form == "fp8" and dtype == torch.bfloat16
    assert (chosen["dense"] == "Triton, widened") == (widened and operands == "widened")
    assert (chosen["experts"] == "Triton, widened") == (widened and operands == "widened")
    assert {runs for operation, runs in chosen.items() if operation not in found} <= {"torch"}


def test_where_triton_does_not_run_torch_does():
    for form in NAMES:
        assert set(choices(torch.device("meta"), form, torch.bfloat16).values()) == {"torch"}


def test_the_table_of_kinds_says_where_triton_runs(monkeypatch):
    monkeypatch.setattr(fallback, "has_triton", lambda: True)
    for kind in KINDS.values():
        tensor = SimpleNamespace(device=torch.device(kind.name))
        assert fallback.on_gpu(tensor) == (kind.kernels == "Triton")  # type: ignore[arg-type]
    monkeypatch.setattr(fallback, "has_triton", lambda: False)
    assert not fallback.on_gpu(SimpleNamespace(device=torch.device("cuda")))  # type: ignore[arg-type]


def test_devices_are_those_of_the_table(monkeypatch):
    assert find_device("cpu") == torch.device("cpu")
    for name in ("meta", "npu", "tpu", ""):
        with pytest.raises(OptionError, match="is none of 'auto', 'cpu', 'cuda', 'xpu', 'mps'"):
            find_device(name)
    with pytest.raises(OptionError, match="cannot be used here"):
        find_device("cpu:x")
    for found, expected in ((None, "cpu"), (torch.device("meta"), "cpu"), (torch.device("cuda:1"), "cuda:1")):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda found=found, **_: found)
        assert find_device("auto") == torch.device(expected)


@pytest.mark.parametrize("flag", [True, False])
def test_dtypes_follow_the_kind_and_the_flags_of_a_cpu(monkeypatch, flag):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: flag)
    assert auto_dtype(torch.device("cpu")) == (torch.bfloat16 if flag else torch.float32)
    assert {auto_dtype(torch.device(name)) for name in KINDS if name != "cpu"} == {torch.bfloat16}
    rows = kernel_choices(torch.device("cpu"))
    assert [row["form"] for row in rows] == NAMES
    assert rows[-1]["dtype"] == ("bfloat16" if flag else "float32")
    assert all(set(row) == {"form", "dtype", *OPERATIONS} for row in rows)
