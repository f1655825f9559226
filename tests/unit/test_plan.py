"""The plan: what it counts is what the model has and what its cache allocates; every figure says where it stands."""

from __future__ import annotations

import json

import pytest
import torch

from redraft.bench import plan as plan_module
from redraft.bench.catalogue import Device, find_devices, this_cpu
from redraft.bench.floor import part_floors_s, step_parts
from redraft.bench.machine import Machine
from redraft.bench.plan import Request, best_form, form_plan, resident_share
from redraft.bench.plan_tables import catalogue_table, forms_table, kernels_table, source_lines
from redraft.bench.shapes import shape_config
from redraft.checkpoint.layout import parts_of
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.random import random_source
from redraft.checkpoint.rounding import RECIPES, rounded
from redraft.cli import main
from redraft.engine.footprint import FORMS, kv_bytes, tensor_shapes, weight_bytes
from redraft.model.config import ModelConfig
from redraft.model.model import DiffusionGemma
from redraft.model.scratch import initialise

MACHINE = Machine(
    cpu="a cpu",
    cores=2,
    threads=1,
    torch="2",
    peak_flops={"float32": 1e9, "bfloat16": 2e9, "int8": 4e9},
    read_bytes_per_s=1e9,
    others_share=0.0,
)
FORM = {form.name: form for form in FORMS}
STEPS = {"12", "16", "24", "48"}


@pytest.fixture
def measured(monkeypatch):  # this machine takes no time to measure
    monkeypatch.setattr(plan_module, "measure_machine", lambda: MACHINE)


def tiny_model(**changes) -> DiffusionGemma:
    model = DiffusionGemma(shape_config("tiny", **changes))
    initialise(model, seed=0)
    return model


def device(memory_bytes: int, **changes) -> Device:
    fields = dict(
        key="x",
        name="x",
        is_cpu=False,
        memory_bytes=memory_bytes,
        read_bytes_per_s=1e12,
        operations_per_s={"float32": 1e13, "bfloat16": 1e14},
        host_bytes_per_s=3e10,
    )
    return Device(**fields | changes)


def request(**changes) -> Request:
    fields = dict(config=shape_config("full"), context=1024, batch=1, disk_bytes_per_s=1e9)
    return Request(**fields | changes)


@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_are_those_of_the_model(name, dtype):
    model = tiny_model()
    real = sum(tensor.to(dtype).nbytes for tensor in model.backbone.state_dict().values())
    assert sum(weight_bytes(model.config, FORM[name], on_cpu=True)) == real


@pytest.mark.parametrize("name", ["int8", "int4", "fp8"])
@pytest.mark.parametrize("width", [16, 32])
def test_weights_of_a_quantised_form_are_those_of_its_matrices(name, width):
    # 16 columns do not divide into int4 blocks: those experts are int8.
    config = shape_config("tiny", moe_intermediate_size=width)
    shapes = tensor_shapes(config)
    expected = {True: 0, False: 0}
    for parameter, tensor in random_source(config, "tiny").parameters(shapes).items():
        form = RECIPES[name].form_of(shapes, parameter)
        if form is None:
            size = tensor.read().numel() * FORM[name].activation_bytes(on_cpu=True)
        else:
            size = sum(part.nbytes for part in parts_of("x", rounded(tensor, form)).values())
        expected[".experts." in parameter] += size
        if ".experts." in parameter and name == "int4":
            assert form == ("int8" if width == 16 else "int4")
    assert weight_bytes(config, FORM[name], on_cpu=True) == (expected[True], expected[False])


def test_the_released_shape_has_the_published_size():
    sizes = {form.name: sum(weight_bytes(shape_config("full"), form, on_cpu=False)) / 1e9 for form in FORMS}
    assert sizes["bfloat16"] == pytest.approx(50.5, abs=0.1)
    assert sizes["int4"] < 15 < sizes["int8"] < 26


@pytest.mark.parametrize("context", [5, 512, 513, 1100])
def test_the_cache_is_as_large_as_the_one_that_a_model_fills(context):
    model = tiny_model(num_hidden_layers=2, sliding_window=64)
    cache = model.new_cache(1)
    for first in range(0, context, 512):
        model.encode(torch.zeros(1, min(512, context - first), dtype=torch.long), cache)
    model.denoise_hidden(torch.zeros(1, 32, dtype=torch.long), cache)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.sequences[0].layers)
    assert kv_bytes(model.config, context=context, batch=1, itemsize=4) == real
    assert kv_bytes(model.config, context=context, batch=3, itemsize=2) == 3 * real // 2


def test_fewer_bits_read_fewer_bytes_and_take_no_longer():
    config = shape_config("full")
    rates = {"float32": 1e13, "bfloat16": 1e14, "fp8": 2e14, "int8": 2e14}
    floors = []
    for form in FORMS:
        parts = step_parts(config, form.name, positions=256, context=1024)
        floors.append(sum(part_floors_s(parts, rates, 1e12, form.name).values()))
    assert floors == sorted(floors, reverse=True)
    assert floors[-1] < floors[-2]


def test_fewer_touched_experts_are_read_and_the_causal_mode_does_less():
    config = shape_config("full")
    parts = {part.name: part for part in step_parts(config, "int4", positions=256, context=0)}
    few = {part.name: part for part in step_parts(config, "int4", positions=256, context=0, experts_touched=84)}
    assert few["experts"].bytes_read == pytest.approx(parts["experts"].bytes_read * 84 / 128)
    assert few["experts"].operations == parts["experts"].operations
    causal = {part.name: part for part in step_parts(config, "int4", positions=256, context=0, causal=True)}
    assert causal["head"].operations == parts["head"].operations / 2
    assert causal["dense"].operations < parts["dense"].operations


def test_a_kind_without_products_of_its_own_runs_as_bfloat16():
    parts = step_parts(shape_config("full"), "int8", positions=256, context=0)
    plain = part_floors_s(parts, {"bfloat16": 1e12}, 1e15, "int8")
    own = part_floors_s(parts, {"bfloat16": 1e12, "int8": 2e12}, 1e15, "int8")
    slow = part_floors_s(parts, {"bfloat16": 1e12, "int8": 1e11}, 1e15, "int8")
    assert own["experts"] == plain["experts"] / 2
    assert slow == plain
    assert own["attention"] == plain["attention"]


def test_experts_stay_by_whole_layers():
    assert resident_share(300, 300, 30) == 1.0
    assert resident_share(299, 300, 30) == 27 / 30
    assert resident_share(20, 300, 30) == 0.0
    assert resident_share(19, 300, 30) is None


def test_less_memory_streams_more_and_goes_slower():
    rows = [form_plan(request(), device(size * 10**9), FORM["int4"]) for size in (40, 14, 8, 6, 1)]
    shares = [row["resident_expert_share"] for row in rows]
    assert rows[0]["fits"]
    assert shares[0] == 1.0
    assert shares[1] > shares[2] > shares[3]
    assert shares[4] is None
    assert rows[4]["step_floor_s"] is None
    steps = [row["step_floor_s"] for row in rows[:4]]
    assert steps == sorted(steps)
    # What streams over the host's link comes from the disk where there is no such link.
    alone = form_plan(request(), device(8 * 10**9, host_bytes_per_s=None), FORM["int4"])
    assert alone["stream_s"] == pytest.approx(30 * rows[2]["stream_s"])


def test_rates_follow_from_the_step():
    row = form_plan(request(), device(10**12), FORM["bfloat16"])
    assert row["step_floor_s"] == pytest.approx(sum(row["step_parts"].values()))
    assert row["step_floor_typical_s"] < row["step_floor_s"]
    for steps, rate in row["tokens_per_second"].items():
        assert 256 / ((int(steps) + 1) * row["step_floor_s"]) < rate < 256 / (int(steps) * row["step_floor_s"])
    rates = list(row["tokens_per_second"].values())
    assert rates == sorted(rates, reverse=True)


def test_unknown_rates_leave_the_memory():
    row = form_plan(request(), this_cpu(None), FORM["int4"])
    assert row["total_bytes"] > 0
    assert row["step_floor_s"] is None
    assert best_form({"forms": [row]}) is None
    gaudi = find_devices(["gaudi-3"])[0]
    assert form_plan(request(), gaudi, FORM["float32"])["step_floor_s"] is None
    assert form_plan(request(), gaudi, FORM["int8"])["step_floor_s"] > 0


def test_the_json_document_is_complete(measured, capsys):
    assert main(["plan", "--device", "h100", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"model", "context", "batch", "machine", "devices"}
    assert document["model"]["parameters"] == pytest.approx(25.25e9, rel=0.001)
    assert document["machine"]["measured"]["cpu"] == "a cpu"
    assert document["devices"][0]["key"] == "this"
    assert document["devices"][-1]["name"] == "H100 SXM"
    assert [row["form"] for row in document["devices"][0]["kernels"]] == [form.name for form in FORMS]
    assert document["devices"][-1]["kernels"] is None
    for entry in document["devices"]:
        assert {"name", "memory_bytes", "forms", "published", "sources"} <= set(entry)
        assert [row["form"] for row in entry["forms"]] == [form.name for form in FORMS]
        for row in entry["forms"]:
            parts = ("weights_bytes", "vision_bytes", "kv_bytes", "workspace_bytes")
            assert row["total_bytes"] == sum(row[part] for part in parts)
            assert row["workspace_bytes"] == sum(row["workspace_parts"].values())
            if row["resident_expert_share"] is not None:
                assert set(row["tokens_per_second"]) == STEPS
                assert row["autoregressive_tokens_per_second"] > 0
                verified = row["verified_tokens_per_second"]
                assert 0 < verified["4"] < verified["8"] < verified["16"]
                assert verified["16"] / verified["4"] == pytest.approx(17 / 5)
                assert row["forwards_per_token"]["verified"]["4"] == 2 / 5
                # As many tokens as the causal mode writes in the same time.
                rate = verified["4"] * (row["verified_pays_from_kept"] + 1) / 5
                assert rate == pytest.approx(max(row["autoregressive_tokens_per_second"], verified["4"] / 5))
                assert set(row["step_parts"]) == {"projections", "attention", "dense", "experts", "head"}


def test_what_was_seen_stands_beside_what_is_possible(measured, capsys):
    seen = {}
    for more in ([], ["--memory", "12"], ["--batch", "2"], ["--shape", "mid"]):
        assert main(["plan", "--device", "rtx-5090", "--json", *more]) == 0
        seen[" ".join(more)] = json.loads(capsys.readouterr().out)["devices"]
    card = seen[""][-1]
    assert card["expected_tokens_per_second"] == [700, 700]
    assert max(row["tokens_per_second"]["16"] for row in card["forms"]) > 700
    for more in ("--memory 12", "--batch 2", "--shape mid"):
        assert seen[more][-1]["expected_tokens_per_second"] is None, more


def test_a_limit_of_memory_holds_everywhere(measured, capsys):
    assert main(["plan", "--device", "h100", "--memory", "16", "--json"]) == 0
    devices = json.loads(capsys.readouterr().out)["devices"]
    assert all(entry["memory_bytes"] <= 16e9 for entry in devices)
    assert not any(row["fits"] for row in devices[-1]["forms"])


def test_tables_and_picture(measured, capsys, tmp_path):
    picture = tmp_path / "plan.png"
    assert main(["plan", "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "H100 SXM" in shown
    assert "1,008 (FP8, vLLM)" in shown
    assert "what runs there:" in shown
    assert "sources (" in shown
    assert picture.read_bytes()[:4] == b"\x89PNG"
    document = plan_module.plan(
        model=None, shape="full", devices=["h100"], context=64, batch=2, memory_bytes=None, disk_bytes_per_s=1e9,
        measure=False,
    )  # fmt: skip
    assert forms_table(document["devices"][0]).row_count == len(FORMS)
    assert kernels_table(document["devices"][0]).row_count == len(FORMS)
    assert catalogue_table(document["devices"]).row_count == len(document["devices"])
    assert any("vLLM" in line for line in source_lines(document["devices"]))


def test_a_checkpoint_is_read_by_its_headers(measured, capsys):
    assert main(["plan", "--model", "mini", "--device", "h100", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    model = document["model"]
    # Nobody reports anything of mini.
    assert document["devices"][-1]["published"] == []
    file = BUNDLED / "mini" / "model.safetensors"
    assert 0 < file.stat().st_size - model["stored_bytes"] < 100_000
    assert model["canvas_length"] == ModelConfig.from_directory(BUNDLED / "mini").canvas_length


def test_a_directory_without_weights_can_be_planned(tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((BUNDLED / "mini" / "config.json").read_bytes())
    assert main(["plan", "--model", str(tmp_path), "--quick", "--device", "h100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["stored_bytes"] is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--device", "tpu"], "no device 'tpu'"),
        (["--shape", "huge"], "no shape 'huge'"),
        (["--model", "mini", "--shape", "tiny"], "exclude"),
        (["--memory", "0"], "--memory"),
        (["--disk", "0"], "--disk"),
        (["--quick", "--device", "h100", "--shape", "tiny", "--plot", "no/such/place.png"], "cannot write"),
    ],
)
def test_bad_input_is_one_line(measured, capsys, arguments, reason):
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
