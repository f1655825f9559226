"""A denoising step and an encoding of the released shape as a GPU would be told them: how much is launched, and that
all of it compiles for GPUs that need not be here, without spilling registers.

This file is also the program that records, in a process whose Triton was imported without its interpreter.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).parent.parent))

# Compiled in every run of the tests; the others take minutes. The bundled model's sizes divide into other tiles.
QUICK = {("cuda", "90", "int4", "full"), ("cuda", "90", "bf16", "mini")}
NAMES = [("cuda", "80"), ("cuda", "90"), ("cuda", "120"), ("hip", "gfx942"), ("hip", "gfx1100")]
CASES = [
    pytest.param(
        *name, form, shape, id=f"{name[1]}-{form}-{shape}",
        marks=() if (*name, form, shape) in QUICK else pytest.mark.full,
    )
    for name in NAMES for form in ("int4", "int8", "fp8", "bf16") for shape in ("full", "mini")
]  # fmt: skip


def main(task, backend, name, form, batch, shape="full"):
    from offline import TARGETS, meta_model, recording, resources, target_named
    from redraft.engine.graph import EncodeGraph, StepGraph

    target = target_named(f"{backend}:{name}")
    with recording(target):
        model = meta_model(form, target, config_of(shape))
    length = model.config.canvas_length
    step = StepGraph(model, batch_size=int(batch), length=length, capacity=1024, threshold=1)
    with recording(target) as seen:
        step._step()
    if task == "count":
        print(json.dumps(seen.counts))
        return
    if task == "held":
        print(json.dumps(held_counts(model, target, int(batch))))
        return
    # By the modules themselves, whose kernels are others.
    encode = EncodeGraph(model, length=length, capacity=1024)
    with recording(target) as also, model.by_modules():
        encode._encode()
    found, done = {}, set()
    for launched in seen.kernels + also.kernels:
        kernel, _, arguments, options = launched
        key = (kernel.fn.__name__, *(str(getattr(a, "dtype", a)) for a in arguments), str(options))
        if key not in done:
            done.add(key)
            found[f"{kernel.fn.__name__} {len(done)}"] = resources(launched, target)
    print(json.dumps({"limit": TARGETS[target][0], "kernels": found}))


def held_counts(model, target, batch):
    """Of the parts of a step under a constraint, by name, but that a walk of the vocabulary is made twice: without a
    broad class, and with two."""
    import numpy as np

    from offline import recording
    from redraft.core.automaton import Parts
    from redraft.engine.graph import StepGraph

    length, vocabulary = model.config.canvas_length, model.config.vocab_size
    step = StepGraph(model, batch_size=batch, length=length, capacity=1024, threshold=1, held=True)
    class_of = np.where(np.arange(vocabulary) % 9 < 8, np.arange(vocabulary) % 9 % 2, 2).astype(np.int32)
    class_of[class_of == 2] = np.where(np.arange((class_of == 2).sum()) < 1000, 2, -1)
    explicit = Parts.of(np.where(class_of == 2, 0, -1).astype(np.int32), np.array([], np.int64), 1)
    works = {"find": step.find, "end": step.end}
    for name, parts in {"walk": explicit, "broad walk": Parts.of(class_of, np.array([0, 1]), 3)}.items():
        walk = model.walk(parts, step.hidden[0])
        walk.run()
        works[name] = walk.run
    counts = {}
    for name, work in works.items():
        with recording(target) as seen:
            work()
        counts[name] = seen.counts
    return counts


def config_of(shape):
    """Of a shape of the benchmark's, or of the bundled model."""
    from redraft.bench.shapes import shape_config
    from redraft.checkpoint.locate import BUNDLED
    from redraft.checkpoint.source import Source

    return Source.open(BUNDLED / "mini").config if shape == "mini" else shape_config(shape)


def said(*arguments, cache, **variables):
    """What the program says of a task."""
    # Triton is not imported here, where others may want its interpreter.
    triton = importlib.util.find_spec("triton")
    vendor = {"cuda": "nvidia", "hip": "amd"}[arguments[1]]
    if triton is None or not (Path(str(triton.origin)).parent / "backends" / vendor).exists():
        pytest.skip(f"no Triton for {vendor}")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("form", ["int4", "bf16"])
def test_a_step_is_few_launches(form, batch, tmp_path):
    counts = said("count", "cuda", "90", form, str(batch), cache=tmp_path)
    layers = 30
    products = counts.get("dense_kernel", 0) + counts.get("mm", 0)
    # Four of a layer, two of self-conditioning; the head and the experts have their own.
    assert products == 4 * layers + 2
    each = ("middle_kernel", "end_kernel", "choose_kernel", "attention_kernel", "gate_up_kernel", "down_kernel")
    assert {counts[name] for name in each} == {layers}
    assert counts["advance_kernel"] == counts["draws_kernel"] == counts["begin_kernel"] == 1
    # Fifteen of a layer, where its modules take forty.
    assert sum(counts.values()) <= 15 * layers + 40, counts


def test_a_step_under_a_constraint_is_a_launch_more(tmp_path):
    """What the model does is the same, captured; the end is told by itself."""
    whole, parts = (said(task, "cuda", "90", "int4", "1", cache=tmp_path) for task in ("count", "held"))
    assert parts["end"] == {"advance_kernel": 1}
    find = {name: count for name, count in parts["find"].items() if name != "copy_"}
    assert find | {"advance_kernel": 1} == {name: count for name, count in whole.items() if name != "copy_"}
    assert sum(parts["walk"].values()) < 20, parts["walk"]
    assert 500 < sum(parts["broad walk"].values()) < 800, "which is why it is captured"


def spilling(kernels):
    """Those that keep registers on the stack, but for what is known: sines of large angles have a table of their own
    there, and Triton 3.9 leaves 96 bytes of the attention of sm_90."""
    newest = Version(importlib.metadata.version("triton")) >= Version("3.9")
    known = {"attention_kernel": 96 if newest else 0, "rotary_kernel": 2**62}
    return {name: x for name, x in kernels.items() if x["spilled"] > known.get(name.split(" ")[0], 0)}


@pytest.mark.parametrize(("backend", "name", "form", "shape"), CASES)
def test_all_that_is_launched_fits_its_gpu(backend, name, form, shape, tmp_path):
    found = said("compile", backend, name, form, "1", shape, cache=tmp_path)
    kernels = found["kernels"]
    assert len(kernels) > 15
    assert not {kernel: x for kernel, x in kernels.items() if x["shared"] > found["limit"]}
    assert not spilling(kernels)


@pytest.mark.full
def test_every_kernel_waits_for_the_one_before_where_it_starts_early(tmp_path):
    given = ("compile", "cuda", "90", "int4", "1")
    early = said(*given, cache=tmp_path, REDRAFT_PDL="1")["kernels"]
    assert {x["waits"] for x in early.values()} == {1}
    assert not spilling(early)
    plain = said(*given, cache=tmp_path)["kernels"]
    assert {x["waits"] for x in plain.values()} == {0}


if __name__ == "__main__":
    main(*sys.argv[1:])
