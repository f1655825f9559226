"""The GPU benchmark, tried on the CPU at a tiny shape: what it writes, and that it goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
PARTS = "machine,verify,int4,energy,transformers_compiled"


def loaded(name: str) -> ModuleType:
    """A script of the benchmark; its folder is on no path here."""
    spec = importlib.util.spec_from_file_location(f"gpu_benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STORE, REPORT = loaded("store"), loaded("report")


def run(out: Path, *more: str) -> str:
    command = [sys.executable, str(FOLDER / "run.py"), "--out", str(out), "--device", "cpu", "--shape", "tiny", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_trial_run_and_its_continuation(tmp_path):
    said = run(tmp_path, "--parts", PARTS)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["device"]["type"] == "cpu"
    assert results["machine"]["copy"]["bytes_per_s"] > 0
    point = results["tiny"]["int4"]["experts_4"]["context_64"]["batch_1"]
    assert point["step_ms"] > 0
    assert len(point["samples_ms"]) >= 2
    assert point["tokens_per_s"].keys() == {"12", "16", "24", "48"}
    assert point["floor_ms"] > 0
    assert {"attention", "experts", "head", "rest"} <= point["parts"]["parts_ms"].keys()
    assert results["tiny"]["int4"]["experts_3"]["context_256"]["batch_1"]["experts_touched"]["mean"] >= 2
    assert results["tiny"]["int4"]["autoregressive"]["context_64"]["batch_1"]["token_ms"] > 0
    assert "NVIDIA" in results["energy"]["int4"]["skipped"]
    assert "GPU" in results["transformers"]["skipped"]
    if importlib.util.find_spec("triton") is not None:
        checks = {name: found for name, found in results["verify"].items() if name != "seed"}
        assert len(checks) > 20
        assert [name for name, found in checks.items() if not found.get("ok")] == []
    report = (tmp_path / "report.md").read_text()
    assert report in said
    assert f"| int4 | 4 | 64 | 1 | {point['step_ms']:.3f} |" in report

    path = tmp_path / "int4.json"
    stopped = json.loads(path.read_text())
    stopped["done"] = False
    del stopped["results"]["experts_4"]["context_64"]
    path.write_text(json.dumps(stopped))
    others = {other: other.read_bytes() for other in tmp_path.glob("*.json") if other.stem in ("machine", "verify")}
    run(tmp_path, "--parts", PARTS)
    again = json.loads(path.read_text())
    assert again["done"]
    assert again["results"]["experts_4"]["context_64"]["batch_1"]["samples_ms"] != point["samples_ms"]
    assert again["results"]["experts_3"] == stopped["results"]["experts_3"]
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

    def ends():
        # As the next process finds it.
        found = STORE.Store(tmp_path, "part")
        assert found.settle(death)
        assert not found.settle(death)
        return 1

    store.measure(("a", "b"), ends)
    store.results["a"]["b"] = {"started": True}
    store.save()
    found = STORE.Store(tmp_path, "part")
    assert found.settle(death)
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
