"""The GPU benchmark, tried on the CPU at a tiny shape: what it writes, and that it goes on where it stopped."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
PARTS = "machine,int4_first,verify,engine,int4,pdl,energy,transformers_compiled"
sys.path.insert(0, str(FOLDER))


def loaded(name: str) -> ModuleType:
    """A script of the benchmark; its folder is on no path here."""
    spec = importlib.util.spec_from_file_location(f"gpu_benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses ask for it.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


STORE, REPORT, PARTS_OF, CLOCK = (loaded(name) for name in ("store", "report", "parts", "clock"))


def run(out: Path, *more: str) -> str:
    command = [sys.executable, str(FOLDER / "run.py"), "--out", str(out), "--device", "cpu", "--shape", "tiny", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_trial_run_and_its_continuation(tmp_path):
    archive = tmp_path / "kept.tgz"
    said = run(tmp_path, "--parts", PARTS, "--processes", "2", "--pack", str(archive))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["device"]["type"] == "cpu"
    assert results["machine"]["copy"]["bytes_per_s"] > 0
    point = results["tiny"]["int4"]["experts_4"]["context_64"]["batch_1"]
    assert point["step_ms"] > 0
    assert len(point["samples_ms"]) >= 2
    assert point["tokens_per_s"].keys() == {"12", "16", "24", "48"}
    assert point["floor_ms"] > 0
    assert {"attention", "experts", "head", "rest"} <= point["parts"]["parts_ms"].keys()
    # Nothing is captured here, and the same launches give the same bits.
    assert point["captured"] is False
    assert point["same_bits"] == {"steps": 8, "twice": True, "as_launches": True, "unlike": []}
    assert point["device_ms"] > 0
    assert "compute capability 9" in results["pdl"]["skipped"]
    assert results["engine"]["float32"]["same_text"] == results["engine"]["batch"]["same_text"] == 3
    assert results["tiny"]["int4"]["experts_3"]["context_256"]["batch_1"]["experts_touched"]["mean"] >= 2
    assert results["tiny"]["int4"]["autoregressive"]["context_64"]["batch_1"]["token_ms"] > 0
    assert "NVIDIA" in results["energy"]["int4"]["skipped"]
    assert "GPU" in results["transformers"]["skipped"]
    if importlib.util.find_spec("triton") is not None:
        checks = {name: found for name, found in results["verify"].items() if name != "seed"}
        assert len(checks) > 40
        assert {path.name for path in tmp_path.glob("verify*")} == {"verify.0.json", "verify.1.json"}
        assert [name for name, found in checks.items() if not found.get("ok")] == []
    report = (tmp_path / "report.md").read_text()
    assert report in said
    assert f"| int4 | 4 | 64 | 1 | {point['step_ms']:.3f} |" in report
    assert "verify: " in said.rstrip().splitlines()[-1], "what is short comes last"
    with tarfile.open(archive) as packed:
        assert packed.extractfile("report.md").read().decode() == report
        assert "int4.json" in packed.getnames()

    path = tmp_path / "int4.json"
    stopped = json.loads(path.read_text())
    stopped["done"] = False
    del stopped["results"]["experts_3"]["context_64"]
    path.write_text(json.dumps(stopped))
    others = {
        other: other.read_bytes()
        for other in tmp_path.glob("*.json")
        if other.stem in ("machine", "int4_first", "verify.0")
    }
    before = results["tiny"]["int4"]["experts_3"]["context_64"]["batch_1"]["samples_ms"]
    run(tmp_path, "--parts", PARTS, "--processes", "2")
    again = json.loads(path.read_text())
    assert again["done"]
    assert again["results"]["experts_3"]["context_64"]["batch_1"]["samples_ms"] != before
    assert again["results"]["experts_4"] == stopped["results"]["experts_4"]
    assert {other: other.read_bytes() for other in others} == others


def test_what_fails_is_kept_and_the_rest_goes_on(tmp_path):
    def broken():
        raise ValueError("no such\nthing")

    def elsewhere():
        raise STORE.Skipped("another vendor's")

    store = STORE.Store(tmp_path, "part")
    assert store.measure(("a", "b"), broken) is None
    assert store.measure(("a", "c"), elsewhere) is None
    assert store.measure(("a", "d"), lambda: 3) == 3
    kept = STORE.Store(tmp_path, "part")
    assert kept.results["a"]["b"] == {"error": {"type": "ValueError", "message": "no such thing"}}
    assert kept.results["a"]["c"] == {"skipped": "another vendor's"}
    # Neither is tried again, nor is what is there.
    assert kept.measure(("a", "b"), lambda: 4) is None
    assert kept.measure(("a", "d"), lambda: 4) == 3


def test_nothing_begins_that_does_not_fit_the_time(tmp_path):
    store = STORE.Store(tmp_path, "part", deadline=time.time() + 5)
    with pytest.raises(STORE.OutOfTime):
        store.measure(("a",), lambda: 1, needs_s=60)
    assert store.measure(("a",), lambda: 1, needs_s=0) == 1


@pytest.mark.parametrize("death", [None, "status -11"])
def test_what_was_under_way_when_the_process_ended(tmp_path, death):
    store = STORE.Store(tmp_path, "part")
    store.results["a"] = {"b": {"started": True}}
    store.save()
    # As the next process finds it.
    found = STORE.Store(tmp_path, "part")
    assert found.settle(death)
    assert not found.settle(death)
    # Stopped from outside: made again. Died by itself: kept as what happened.
    assert found.measure(("a", "b"), lambda: 2) == (2 if death is None else None)


def test_a_lost_device_ends_the_process(tmp_path):
    store = STORE.Store(tmp_path, "part", is_alive=lambda: False)
    with pytest.raises(STORE.DeviceLost):
        store.measure(("a",), lambda: 1 / 0)
    assert STORE.Store(tmp_path, "part").results["a"]["error"]["type"] == "ZeroDivisionError"


def test_a_report_of_what_is_there(tmp_path):
    store = STORE.Store(tmp_path, "fp8_more")
    store.measure(("experts_128", "context_1024", "batch_2"), lambda: 1 / 0)
    text = REPORT.write_report(tmp_path, "full", "a command")
    assert "| fp8 | 128 | 1024 | 2 | ZeroDivisionError" in text
    assert "Not finished: fp8_more" in text
    assert "int4: not measured of 7 ms" in text


def test_a_process_whose_capture_failed_measures_nothing_more(tmp_path):
    failed = []
    store = STORE.Store(tmp_path, "part", is_spent=lambda: bool(failed))
    assert store.measure(("a",), lambda: 1) == 1
    with pytest.raises(STORE.ProcessSpent):
        store.measure(("b",), lambda: failed.append("at its end") or 2)
    aside = [{"of": ["b"], "found": 2}]
    assert STORE.Store(tmp_path, "part").results == {"a": 1, "set aside": aside}
    failed.clear()
    assert store.measure(("b",), lambda: 3) == 3, "another process measures it as it is meant to be"


def test_the_next_process_captures_less(tmp_path, monkeypatch):
    """The first capture fails with a branch, the second without; the third process captures nothing."""
    children, started = loaded("children"), []

    def start(self, parts, share, environment):
        started.append(self._capture)
        store = STORE.Store(tmp_path, "int4")
        if self._capture == "none":
            store.finish()
        else:
            store.save()
        code = 0 if self._capture == "none" else 5
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])

    monkeypatch.setattr(children.Children, "_start", start)
    arguments = argparse.Namespace(out=tmp_path, capture="all", device="cuda", processes=None)
    made = children.Children(arguments, deadline=time.time() + 60, on_progress=lambda: None)
    assert made.run(["int4"], processes=1, environment={})
    assert started == ["all", "no-branches", "none"]
    assert not made.nothing


@pytest.mark.full
def test_a_run_that_was_cut_off_leaves_nothing_half_done(tmp_path):
    """As on a machine that goes away: nobody was left to tidy up. And a second run beside it is refused."""
    STORE.Store(tmp_path, "machine").save()
    store = STORE.Store(tmp_path, "machine")
    store.results["copy"] = {"started": True}
    store.save()
    command = [sys.executable, str(FOLDER / "run.py"), "--out", str(tmp_path), "--device", "cpu", "--shape", "tiny"]
    command += ["--parts", "machine, verify", "--kernels", str(tmp_path / "none.tgz")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = [first.stdout.readline(), first.stdout.readline()]
    assert "none.tgz cannot be read" in said[0]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "another run is at work" in second.stderr
    while "copy" not in STORE.Store(tmp_path, "machine").results or not STORE.Store(tmp_path, "machine").done:
        assert first.poll() is None
        time.sleep(0.1)
    first.terminate()
    rest = first.communicate(timeout=60)[0]
    assert first.returncode == 143
    assert "## In short" in rest
    assert "**not run, or not to its end**" in rest
    assert STORE.Store(tmp_path, "machine").results["copy"]["bytes_per_s"] > 0
    # Its children have ended with it.
    assert subprocess.run(command[:-2], capture_output=True, text=True, timeout=200, check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "says"), [(["--processes", "0"], "at least 1"), (["--parts", "verfy"], "no such part: verfy")]
)  # fmt: skip
def test_what_cannot_be_is_said(tmp_path, flags, says):
    command = [sys.executable, str(FOLDER / "run.py"), "--out", str(tmp_path), "--device", "cpu", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr


def test_other_files_and_folders_do_no_harm(tmp_path):
    (tmp_path / "notes.json").write_text("[1]")
    (tmp_path / "cut.json").write_text('{"part":')
    report = REPORT.Report(tmp_path, "full", "a command", archive=tmp_path / "there" / "kept.tgz")
    assert not report.has_results()
    assert "verify: **not run" in report.write()
    assert (tmp_path / "there" / "kept.tgz").exists()
    (tmp_path / "file").write_text("")
    REPORT.Report(tmp_path, "full", "a command", archive=tmp_path / "file" / "kept.tgz").write()


def test_as_many_verify_at_once_as_fit(tmp_path, monkeypatch):
    children = loaded("children")
    arguments = argparse.Namespace(out=tmp_path, capture="all", device="cuda", processes=None)
    made = children.Children(arguments, deadline=0.0, on_progress=lambda: None)
    assert made.processes() == 1, "nothing is known of the device"
    monkeypatch.setattr(children.os, "cpu_count", lambda: 16)
    for memory, expected in ((24e9, 1), (80e9, 4), (141e9, 6)):
        store = STORE.Store(tmp_path, "machine")
        store.results["device"] = {"total_memory": memory}
        store.save()
        assert made.processes() == expected


def test_kernels_of_ours_count_in_a_part():
    """Ranges of the user's have another scope, and no Triton kernel belongs to those."""
    with torch.profiler.profile() as found, PARTS_OF.span("experts"):
        torch.ones(4).add_(1)
    ranges = [event for event in found.events() if event.name == "part experts"]
    assert [event.scope for event in ranges] == [0]


def test_a_cold_cache_is_a_clean_one():
    clock = CLOCK.Clock(torch.device("cpu"))
    clock._flush()
    written = clock._flood._version
    clock._flush()
    assert clock._flood._version == written, "what is written would be written back while a sample is taken"
    assert clock._flood.nbytes >= 128 * 2**20


def test_launches_that_are_tried_are_captured(monkeypatch):
    tune, captured = loaded("tune"), []

    class Watched(CLOCK.Clock):
        def captured(self, work):
            captured.append(work)
            return work, None

    context = SimpleNamespace(clock=Watched(torch.device("cpu"), quick=True))
    found = tune._best(context, iter([({"shipped": True}, lambda: 1), ({"stages": 3}, lambda: 2)]))
    assert len(captured) == 2
    assert [each["captured"] for each in found["tried"]] == [True, True]


def test_steps_that_differ_are_found():
    step, taken = loaded("step"), []
    state = SimpleNamespace(canvases=SimpleNamespace(tokens=torch.zeros(1, 4)), soft=torch.zeros(1, 4))

    def launch():
        state.canvases.tokens += 1
        taken.append(1)
        # A race: another result in the second run of eight.
        state.soft += float(len(taken) == 12)

    made = step.Step(
        run=launch, launch=launch, work=lambda: state.canvases.tokens.add_(2), graph=state, form="graph", note=None,
        cache=None, place=lambda: None,
    )  # fmt: skip
    assert step.same_bits(made) == {"steps": 8, "twice": False, "as_launches": False, "unlike": ["soft", "tokens"]}


def test_what_is_short_says_what_is_wrong(tmp_path):
    store = STORE.Store(tmp_path, "verify.1")
    store.measure(("norm",), lambda: {"ok": False, "relative_error": 1.0, "bound": 0.1})
    store.measure(("head",), lambda: {"ok": True, "relative_error": 0.0, "bound": 0.1})
    store.measure(("router",), lambda: 1 / 0)
    store.fell_back = ["head int8"]
    store.finish()
    kernels = {"gate_up_kernel": {"ms": 2.5, "launches": 30.0}}
    point = {
        "step_ms": 7.0, "device_ms": 6.5, "captured": False, "note": "RuntimeError: a branch", "form": "eager",
        "same_bits": {"twice": True, "as_launches": False, "unlike": ["tokens"]}, "parts": {"kernels": kernels,
        "parts_ms": {}, "by": "kernels"}, "eager_ms": 9.0, "commit_ms": 1.0, "tokens_per_s": {}, "peak_memory_bytes": 1,
    }  # fmt: skip
    STORE.Store(tmp_path, "int4_first").measure(("experts_128", "context_1024", "batch_1"), lambda: point)
    text = REPORT.write_report(tmp_path, "full", "a command").partition("## In short")[2]
    assert "captured: **no**; because of RuntimeError: a branch" in text
    assert "as launched one by one: **no**; unlike: tokens" in text
    assert "verify: 1 right; wrong or failed: norm, router" in text
    assert "verify.1: torch stood in for head int8" in text
    assert "2.5000 ms in 30 launches: gate_up_kernel" in text
