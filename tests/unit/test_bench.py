"""The bench: what it counts, what it runs, what it reports."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from redraft.adapters.adapter import Adapter
from redraft.adapters.base import fingerprint
from redraft.adapters.files import write_adapter
from redraft.adapters.settings import Settings
from redraft.bench import shapes
from redraft.bench.command import bench
from redraft.bench.floor import floor_s, step_parts
from redraft.bench.machine import Machine, best_time, others_share
from redraft.bench.memory import peak_bytes, reset_peak, resident_bytes
from redraft.bench.report import machine_lines, subjects_table
from redraft.bench.run import Measured, Plan, SubjectFailed, Worker, measure
from redraft.bench.shapes import shape_config, shape_directory
from redraft.bench.subjects import Redraft, Spec, Work
from redraft.checkpoint.convert import quantize
from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import BUNDLED
from redraft.checkpoint.rounding import RECIPES
from redraft.cli import main
from redraft.core.errors import InputError

MACHINE = Machine(
    cpu="a cpu",
    cores=2,
    threads=1,
    torch="2",
    peak_flops={"float32": 1e9, "bfloat16": 2e9, "int8": 4e9},
    read_bytes_per_s=1e9,
    others_share=0.0,
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Shapes and kernels are kept here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def spec(directory, **changes) -> Spec:
    fields = dict(name="x", library="redraft", directory=str(directory), dtype="float32", threads=1)
    return Spec(**fields | changes)


def test_the_parts_of_a_step_are_counted():
    config = shape_config("tiny")
    parts = {part.name: part for part in step_parts(config, "float32", positions=32, context=100)}
    # hidden 64, 5 sliding layers of 4 heads x 16 and 2 x 16, one full layer of 4 x 32 and 1 x 32 with K = V.
    weights = 5 * 64 * (2 * 64 + 2 * 32) + 64 * (2 * 128 + 32)
    assert parts["projections"].operations == 2 * 32 * weights
    assert parts["projections"].bytes_read == 4 * weights
    assert parts["attention"].operations == 4 * 32 * (5 * 64 + 128) * 132
    assert parts["dense"].operations == 2 * 32 * 3 * 64 * 48 * 7
    assert parts["experts"].operations == 2 * 32 * 2 * 3 * 64 * 16 * 6
    assert parts["experts"].bytes_read == 4 * 4 * 3 * 64 * 16 * 6
    assert parts["head"].operations == 4 * 32 * 1024 * 64
    assert parts["head"].bytes_read == 4 * 1024 * 64


def test_a_window_bounds_what_sliding_layers_see():
    config = shape_config("tiny", sliding_window=16)
    near, far = (step_parts(config, "float32", positions=32, context=context)[1] for context in (15, 1000))
    assert far.operations - near.operations == 4 * 32 * 128 * (1000 - 15)


def test_few_rows_touch_few_experts():
    config = shape_config("mid")
    read = [step_parts(config, "int8", positions=count, context=0)[3].bytes_read for count in (1, 2, 4, 256)]
    assert read == [read[0], 2 * read[0], 4 * read[0], 4 * read[0]]


def test_the_floor_takes_the_slower_of_products_and_reading():
    config = shape_config("tiny")
    parts = step_parts(config, "int8", positions=32, context=100)
    expected = sum(
        max(part.operations / (2e9 if part.name == "attention" else 4e9), part.bytes_read / 1e9) for part in parts
    )
    assert floor_s(parts, MACHINE, "int8") == pytest.approx(expected)


def test_the_real_shape_has_the_published_size():
    from redraft.model.model import DiffusionGemma

    with torch.device("meta"):
        full = sum(p.numel() for p in DiffusionGemma(shape_config("full")).parameters())
        mid = sum(p.numel() for p in DiffusionGemma(shape_config("mid")).parameters())
    assert full == pytest.approx(25.2e9, rel=0.01)
    assert mid == pytest.approx(158e6, rel=0.15)


def test_a_shape_is_made_once_and_differs_by_its_sizes(cache):
    first = shape_directory("tiny")
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert shape_directory("tiny") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    other = shape_directory("tiny", num_experts=8)
    assert other != first
    assert json.loads((other / "config.json").read_text())["text_config"]["num_experts"] == 8


def test_shapes_that_cannot_be(cache, monkeypatch):
    with pytest.raises(InputError, match="no shape 'huge'"):
        shape_config("huge")
    with pytest.raises(InputError, match="fewer --layers"):
        shape_directory("full")
    monkeypatch.setattr(shapes.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match="are free"):
        shape_directory("tiny")
    assert not list((cache / "redraft" / "shapes").iterdir())


def test_memory_is_seen():
    before = reset_peak()
    block = torch.ones(2**24)
    assert peak_bytes() >= before + block.nbytes // 2
    assert 0 < resident_bytes() <= peak_bytes()


def test_best_time_and_busyness_are_numbers():
    assert 0 < best_time(lambda: sum(range(100)), 0.01) < 1
    assert 0 <= others_share(0.05) <= 1.5


def test_a_subject_that_cannot_load_is_reported_and_the_others_go_on(cache, tmp_path):
    good, bad = spec(shape_directory("tiny"), name="good"), spec(tmp_path / "none", name="bad")
    plan = Plan(vocab_size=1024, prompt_tokens=5, max_new_tokens=32, steps=2, repetitions=1)
    seen = []
    found = measure([bad, good], plan, lambda name, done, total: seen.append((name, done, total)))
    assert found[0].failed is not None
    assert "none" in found[0].failed
    assert found[0].results == []
    assert [result.steps for result in found[1].results] == [2]
    assert found[1].parts is not None
    assert set(found[1].parts) == {"attention", "dense", "experts", "router", "head", "rest"}
    assert seen[-1][1:] == (5, 6)


def test_a_worker_that_dies_says_so(cache):
    worker = Worker(spec(shape_directory("tiny")))
    worker.process.kill()
    worker.process.wait()
    plan = Plan(vocab_size=1024, prompt_tokens=5, max_new_tokens=32, steps=2, repetitions=1)
    with pytest.raises(SubjectFailed, match="process"):
        worker.run(plan.work(0))
    worker.close()


def test_medians_and_spreads():
    measured = Measured(spec("."))
    for seconds in (3.0, 1.0, 2.0):
        measured.results.append(type("R", (), {"step_s": seconds})())  # type: ignore[arg-type]
    assert measured.median("step_s") == 2.0
    assert measured.spread("step_s") == (1.0, 3.0)


def test_every_subject_gets_the_same_work():
    plan = Plan(vocab_size=50, prompt_tokens=4, max_new_tokens=32, steps=None, repetitions=2)
    assert plan.work(1) == plan.work(1)
    assert plan.work(1).prompt != plan.work(2).prompt
    assert all(3 <= token < 50 for token in plan.work(1).prompt)


def test_the_report_against_transformers(cache, tmp_path, capsys):
    picture = tmp_path / "bench.png"
    arguments = ["--shape", "tiny", "--steps", "2", "--repetitions", "1", "--threads", "1", "--prompt-tokens", "9"]
    compared = ["--against", "transformers", "--settings", "default", "--plot", str(picture), "--json"]
    assert main(["bench", *arguments, *compared]) == 0
    report = json.loads(capsys.readouterr().out)
    for name, field in (("ratio", "step_s"), ("request_ratio", "total_s")):
        assert set(report[name]) == {"float32", "bfloat16", "int8"}
        seconds = {(s["library"], s["dtype"]): s[field] for s in report["subjects"]}
        ours, theirs = seconds["redraft", "float32"], seconds["transformers", "float32"]
        assert report[name]["float32"] == pytest.approx(theirs / ours)
    ours = next(row for row in report["subjects"] if row["name"] == f"redraft {report['dtype']}")
    assert report["step_s"] == ours["step_s"]
    assert report["fraction_of_floor"] == pytest.approx(report["floor_s"] / report["step_s"])
    assert {"cpu", "peak_flops", "busy"} <= set(report["machine"])
    assert [row["steps"] for row in report["subjects"]] == [2] * 5
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert subjects_table(report).row_count == 5
    assert any("GB/s" in line for line in machine_lines(report))


def test_real_mode_on_a_model_with_a_prompt(cache, capsys):
    assert main(["bench", "--model", "mini", "--prompt", "play jazz", "--repetitions", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "redraft" in shown
    assert "ms/step" in shown


FIELDS = dict(
    model=None, shape=None, layers=None, steps=1, prompt=None, prompt_tokens=4, dtype="auto", against=None,
    settings="default", repetitions=1, threads=1, on_progress=lambda *_: None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "mini", "shape": "mid"}, "exclude"),
        ({"layers": 2}, "--layers"),
        ({"shape": "tiny", "prompt": "hello"}, "no tokenizer"),
        ({"shape": "tiny", "dtype": "int3"}, "int3"),
        ({"adapter": "/nowhere/at/all"}, "no directory"),
        ({"adapter": "one", "against": "transformers"}, "--adapter is redraft's own"),
    ],
)
def test_what_cannot_be_measured_is_refused(cache, changes, reason):
    with pytest.raises(InputError, match=reason):
        bench(**FIELDS | changes)


def test_an_adapter_is_measured_with_its_own_base(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("redraft.bench.command.measure_machine", lambda: MACHINE)
    model = load_model(BUNDLED / "mini")
    made = Adapter.fresh(Settings(targets=["attention"], rank=2), model.config)
    made.base = {**fingerprint(model), "family": "0" * 16}
    write_adapter(made, model.config, tmp_path)
    given = {"adapter": str(tmp_path), "dtype": "float32"}
    # What the file says, before anything runs; and what the process that has loaded both says.
    with pytest.raises(InputError, match="another shape"):
        bench(**FIELDS | given | {"shape": "tiny"})
    with pytest.raises(InputError, match="another base"):
        bench(**FIELDS | given)


def test_the_command_refuses_other_rivals(capsys):
    assert main(["bench", "--against", "vllm"]) == 2
    assert "vllm" in capsys.readouterr().err


REFUSED = {
    ("--settings", "all"): "--settings are those of transformers",
    ("--prompt-tokens", "4", "--prompt", "hello"): "--prompt-tokens counts random ids",
    ("--layers", "2"): "--layers cuts a --shape",
    ("--model", "mini", "--shape", "tiny"): "exclude each other",
    ("--shape", "tiny", "--prompt", "hello"): "no tokenizer",
}


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_options_that_would_do_nothing_are_refused(cache, capsys, arguments):
    assert main(["bench", *arguments, "--steps", "1", "--repetitions", "1"]) == 2
    assert REFUSED[arguments] in capsys.readouterr().err


def test_a_rival_that_is_not_installed_is_said_before_anything_is_made(cache, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["bench", "--shape", "tiny", "--against", "transformers"]) == 2
    assert "pip install transformers" in capsys.readouterr().err
    assert list(cache.iterdir()) == []


def test_if_nothing_could_be_measured_the_command_fails(cache, monkeypatch, capsys):
    failed = Measured(spec=spec("mini"), failed="its process ended with code -9")
    monkeypatch.setattr("redraft.bench.command.measure", lambda *_: [failed])
    assert main(["bench", "--model", "mini", "--steps", "1"]) == 1
    assert "its process ended with code -9" in capsys.readouterr().err


def test_what_is_stored_in_a_form_of_ours_is_measured_in_it(cache, tmp_path, capsys):
    quantize(BUNDLED / "mini", tmp_path / "int8", RECIPES["int8"])
    fixed = ["--steps", "1", "--repetitions", "1", "--threads", "1", "--prompt-tokens", "4", "--json"]
    assert main(["bench", "--model", str(tmp_path / "int8"), *fixed]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["dtype"] == "int8"
    assert report["step_s"] > 0
    assert main(["bench", "--model", str(tmp_path / "int8"), "--against", "transformers", *fixed]) == 2
    assert "bench the model that this was made from" in capsys.readouterr().err


class Clocked:
    """A model whose forward takes a second for each of its tokens."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("redraft.bench.subjects.time.perf_counter", lambda: self.now)

    def new_cache(self):
        return []

    def encode(self, ids, cache):
        self.now += ids.numel()
        cache.extend(ids.flatten().tolist())
        return ids.float()[:, :, None]

    def logits(self, hidden):
        return torch.zeros(*hidden.shape[:2], 9)


@pytest.mark.parametrize("length", [1, 500])
def test_a_token_is_timed_without_its_prompt(monkeypatch, length):
    subject = Redraft.__new__(Redraft)
    subject.engine = SimpleNamespace(model=Clocked(monkeypatch))
    assert subject._token_s(Work(prompt=(3,) * length, max_new_tokens=4, steps=1, seed=7)) == 1
