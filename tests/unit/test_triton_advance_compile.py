"""The end and the beginning of a step, and its rotary tables, compiled for GPUs that need not be here.

This file is also the program that compiles, in a process whose Triton was imported without its interpreter.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

TARGETS = [("cuda", "80"), ("cuda", "90"), ("cuda", "120"), ("hip", "gfx942"), ("hip", "gfx1100")]
# Canvases of the bundled and of the released model, and the longest that one program holds.
LENGTHS = (48, 256, 300, 1024)


def main(backend, name):
    import torch

    from offline import TARGETS, recording, resources, target_named
    from redraft.kernels.head_stats import HeadStats
    from redraft.model.rope import rotary
    from redraft.sampler.advance import Canvases

    target = target_named(f"{backend}:{name}")
    found = {}
    with torch.device("meta"):
        for length in LENGTHS:
            for batch, threshold in ((1, 0), (1, 1), (4, 2)):
                canvases = Canvases.empty(batch, length, threshold, 16, torch.device("meta"))
                x, ids = torch.empty(batch, length), torch.empty(batch, length, dtype=torch.long)
                stats = HeadStats(
                    argmax=ids, sample=ids, entropy=x, log_prob=x, best_log_prob=x, soft_embedding=x, dropped_mass=x
                )
                with recording(target) as seen:
                    canvases.advance(stats)
                    canvases.draws()
                    rotary(ids, torch.empty(256), torch.bfloat16)
                for launched in seen.kernels:
                    kernel, _, _, options = launched
                    threads = options["num_warps"] * target[2] / options["BLOCK"]
                    key = f"{kernel.fn.__name__} {threshold}x{batch}x{length}"
                    found[key] = resources(launched, target) | {"threads_an_element": threads}
                assert not seen.operators
    print(json.dumps({"limit": TARGETS[target][0], "kernels": found}))


@pytest.mark.parametrize(("backend", "name"), TARGETS)
def test_they_fit_every_gpu(backend, name, tmp_path):
    # Triton is not imported here, where others may want its interpreter.
    triton = importlib.util.find_spec("triton")
    vendor = {"cuda": "nvidia", "hip": "amd"}[backend]
    if triton is None or not (Path(str(triton.origin)).parent / "backends" / vendor).exists():
        pytest.skip(f"no Triton for {vendor}")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, backend, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    kernels = found["kernels"]
    assert {kernel.split()[0] for kernel in kernels} == {"advance_kernel", "draws_kernel", "rotary_kernel"}
    assert not {kernel: x for kernel, x in kernels.items() if x["shared"] > found["limit"]}
    # Sines of large angles keep a table of their own on the stack, on NVIDIA's.
    assert not {
        kernel: x
        for kernel, x in kernels.items()
        if x["spilled"] > (32 if kernel.startswith("rotary") and backend == "cuda" else 0)
    }
    # Threads that hold the same positions could see what others have written. Those of one warp go together.
    ends = {kernel: x for kernel, x in kernels.items() if kernel.startswith("advance")}
    assert len(ends) == 3 * len(LENGTHS)
    assert {x["threads_an_element"] for x in ends.values()} <= {1.0, 0.5, 0.25}


if __name__ == "__main__":
    main(*sys.argv[1:])
