"""Kernels compiled ahead of time: the archive has what a device's process asks for, which then compiles nothing.

This file is also the program that plays the device's process, whose Triton was imported without its interpreter.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
AHEAD = FOLDER / "ahead.py"
# The cheapest that has several kernels.
TASK = "verify layer"


def main(target, task):
    """What another process makes of its cache."""
    sys.path.insert(0, str(FOLDER))
    from elsewhere import on, target_named
    from rehearsal import rehearse

    failed = {}
    with on(target_named(target), launchers=True) as seen:
        rehearse(task, lambda name, error: failed.update({name: repr(error)}))
    print(json.dumps({"kernels": len(seen.compiled), "compiled": list(seen.seconds), "failed": failed}))


def run(*command, cache, status=0):
    """The last line that a program says."""
    triton = importlib.util.find_spec("triton")
    if triton is None or not (Path(str(triton.origin)).parent / "backends" / "nvidia").exists():
        pytest.skip("no Triton for nvidia")
    if not importlib.metadata.version("triton").startswith("3.6."):
        pytest.skip("the driver that does not launch is written for Triton 3.6")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, command)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1] if done.stdout else done.stderr.splitlines()[-1]


def files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def check_found(cache, task, count):
    """Another process finds all of it, launchers included."""
    before = files(cache)
    found = json.loads(run(__file__, "cuda:90", task, cache=cache))
    assert found == {"kernels": count, "compiled": [], "failed": {}}
    assert files(cache) == before


def test_what_is_carried_is_found(tmp_path):
    archive, plain, elsewhere = tmp_path / "kernels.tgz", tmp_path / "plain", tmp_path / "elsewhere"
    command = (AHEAD, "--out", archive, "--parts", TASK, "--processes", "1", "--at", plain, "--json")
    said = json.loads(run(*command, cache=tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    [task] = said["tasks"]
    assert task["failed"] == {}
    assert said["wrong"] == []
    assert said["kernels"] == len(task["kernels"]) > 5
    assert all(kernel["seconds"] > 0 and kernel["registers"] > 0 for kernel in task["kernels"].values())
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        tar.extractall(plain, filter="data")
    kinds = {Path(name).suffix for name in names}
    assert kinds == {".cubin", ".json", ".so"}
    check_found(plain, TASK, said["kernels"])
    run(AHEAD, "--unpack", archive, cache=elsewhere)
    check_found(elsewhere, TASK, said["kernels"])


@pytest.mark.full
def test_all_of_int4_is_found(tmp_path):
    archive, cache = tmp_path / "kernels.tgz", tmp_path / "cache"
    said = json.loads(run(AHEAD, "--out", archive, "--parts", "steps int4", "--json", cache=tmp_path / "none"))
    [task] = said["tasks"]
    names = {kernel["name"] for kernel in task["kernels"].values()}
    assert {"gate_up_kernel", "attention_kernel", "soft_kernel", "advance_kernel", "norm_kernel"} <= names
    run(AHEAD, "--unpack", archive, cache=cache)
    check_found(cache, "steps int4", said["kernels"])


@pytest.mark.parametrize(
    "parts", ["mini float32", pytest.param("steps,verify,kernels,pdl", marks=pytest.mark.full)]
)  # fmt: skip
def test_all_of_a_part_compiles_without_a_spill(tmp_path, parts):
    said = json.loads(run(AHEAD, "--out", tmp_path / "kernels.tgz", "--parts", parts, "--json", cache=tmp_path))
    assert said["wrong"] == []
    assert said["kernels"] > 20


def test_what_spills_or_does_not_fit_is_named(monkeypatch):
    from offline import loaded

    monkeypatch.syspath_prepend(str(FOLDER))
    ahead = loaded("ahead")
    clean = {"name": "sum_kernel", "seconds": 1.0, "shared": 4096, "registers": 40, "spilled": 0}
    kernels = {
        "clean": clean,
        "known": clean | {"name": "rotary_kernel", "spilled": 32},
        "spills": clean | {"spilled": 8},
        "spills more than is known": clean | {"name": "rotary_kernel", "spilled": 40},
        "too large": clean | {"shared": 8193},
    }
    found = ahead._unfit(ahead.Made(task="steps int4", seconds=0.0, kernels=kernels), 8192)
    assert [line.split(" at ")[0] for line in found] == [
        "sum_kernel spills 8",
        "rotary_kernel spills 40",
        "sum_kernel wants 8193 bytes of shared memory of 8192",
    ]


def test_a_part_that_is_not_there(tmp_path):
    line = run(AHEAD, "--out", tmp_path / "kernels.tgz", "--parts", "stepz", cache=tmp_path, status=2)
    assert "no such part: stepz" in line
    assert not (tmp_path / "kernels.tgz").exists()


if __name__ == "__main__":
    main(*sys.argv[1:])
