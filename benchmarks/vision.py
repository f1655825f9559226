"""What it costs to look at a picture: the released tower with random weights, beside transformers' in the same run.

    python benchmarks/vision.py --tokens 70 280 1120 --dtype bfloat16
    python benchmarks/vision.py --tokens 280 --layers 4     # of 27; times are of so many

Both have the same weights and see the same picture of 640 x 480. transformers pads every picture to its budget, as its
processor does. `floor_s` is the operations over what this machine's products reach, so that 1 is the best there can be;
`share_attention` of them lie in attention. `_cpu_s` are seconds of this process's threads alone, which a machine that
others use stretches less. The first picture of each is not counted.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from redraft.bench.machine import measure_machine
from redraft.vision.config import VisionConfig
from redraft.vision.patches import Patches, patches_of
from redraft.vision.scratch import scratch_vision
from redraft.vision.size import BUDGETS
from redraft.vision.tower import VisionTower

SIZES = dict(
    hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, num_key_value_heads=16,
    head_dim=72, patch_size=16, pooling_kernel_size=3, position_embedding_size=10240, standardize=True,
)  # fmt: skip
TEXT_WIDTH = 2816


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[70, 280], choices=BUDGETS)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--layers", type=int, default=SIZES["num_hidden_layers"])
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="without transformers")
    arguments = parser.parse_args()
    machine = measure_machine()
    sizes = {**SIZES, "num_hidden_layers": arguments.layers}
    config = VisionConfig.from_dict({"vision_config": sizes}, TEXT_WIDTH)
    dtype = getattr(torch, arguments.dtype)
    tower = scratch_vision(config, seed=0).vision_tower.to(dtype).eval().requires_grad_(False)
    theirs = None if arguments.alone else reference(sizes, tower, dtype)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    rows = []
    for budget in arguments.tokens:
        started = time.perf_counter()
        patches = patches_of(pixels, config, budget)
        row: dict[str, Any] = {"image_tokens": budget, "soft_tokens": patches.soft_tokens}
        row["patches_s"] = time.perf_counter() - started
        row |= floor(patches, config, machine.peak_flops[arguments.dtype])
        mine_s, mine = timed(lambda patches=patches: tower(patches), arguments.repetitions)
        row["redraft_s"], row["redraft_cpu_s"] = mine_s
        if theirs is not None:
            values, places = padded(patches, budget)
            look: Callable[[], Any] = lambda v=values, p=places: theirs(v, p).last_hidden_state  # noqa: E731
            their_s, other = timed(look, arguments.repetitions)
            row["transformers_s"], row["transformers_cpu_s"] = their_s
            row["ratio"] = row["transformers_s"] / row["redraft_s"]
            row["largest_difference"] = float((mine - other).abs().max() / other.abs().max())
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    told = {"dtype": arguments.dtype, "layers": arguments.layers, "machine": machine.to_dict(), "pictures": rows}
    print(json.dumps(told, indent=2))


def timed(look: Callable[[], torch.Tensor], repetitions: int) -> tuple[tuple[float, float], torch.Tensor]:
    """((median seconds, median seconds of the process), the result)."""
    seconds, own = [], []
    with torch.no_grad():
        result = look()
        for _ in range(repetitions):
            started, spent = time.perf_counter(), time.process_time()
            look()
            seconds.append(time.perf_counter() - started)
            own.append(time.process_time() - spent)
    return (statistics.median(seconds), statistics.median(own)), result.float()


def floor(patches: Patches, config: VisionConfig, rate: float) -> dict[str, float]:
    """What a picture must cost: its operations at the rate of this machine's products."""
    N, D, I = len(patches.values), config.hidden_size, config.intermediate_size
    inner = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    linear = 2 * N * (D * (2 * inner + 2 * keys) + 3 * D * I) * config.num_hidden_layers
    attention = 4 * N * N * inner * config.num_hidden_layers
    rest = 2 * N * 3 * config.patch_size**2 * D
    total = linear + attention + rest
    return {"floor_s": total / rate, "operations": total, "share_attention": attention / total}


def padded(patches: Patches, image_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, places) as transformers wants them: zeros at (-1, -1) fill the budget."""
    missing = image_tokens * patches.pooling**2 - len(patches.values)
    values = F.pad(patches.values, (0, 0, 0, missing))
    return values[None], F.pad(patches.places, (0, 0, 0, missing), value=-1)[None]


def reference(sizes: dict[str, Any], tower: VisionTower, dtype: torch.dtype) -> torch.nn.Module:
    """transformers' tower with the same weights."""
    from transformers import Gemma4VisionConfig, Gemma4VisionModel

    theirs = Gemma4VisionModel(Gemma4VisionConfig(**sizes)).to(dtype).eval().requires_grad_(False)
    theirs.load_state_dict(tower.state_dict())
    gc.collect()
    return theirs


if __name__ == "__main__":
    main()
