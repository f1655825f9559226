"""What a denoising step costs of which only some positions are computed (`freeze_nats`), beside a whole one.

    python benchmarks/frozen.py --shape mid --quantize int8 --threads 2

Random weights freeze nothing by themselves: so many positions are held still that the share is as asked. Whole and
part take turns in every round; a ratio is to that round's whole step, and stands with the interval that holds its
median in 95 of 100 cases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from turn_about import interval_of_median

import redraft
from redraft.bench.machine import cpu_name, others_share
from redraft.bench.shapes import shape_directory
from redraft.engine.engine import LocalEngine
from redraft.model.cache import KVCache
from redraft.model.some import CanvasKeys, denoise_some

PREFIX = 128
COMPUTED = (1.0, 0.75, 0.6, 0.5, 0.25, 0.0625)


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="mid")
    parser.add_argument("--quantize", choices=("int8", "int4"))
    parser.add_argument("--dtype")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    busy = others_share()
    form = {name: getattr(given, name) for name in ("dtype", "quantize") if getattr(given, name) is not None}
    engine = redraft.load(shape_directory(given.shape), threads=given.threads, **form)
    assert isinstance(engine, LocalEngine)
    head = {"shape": given.shape, **form, "cpu": cpu_name(), "threads": torch.get_num_threads(), "others_share": busy}
    print(json.dumps(head | {"steps": beside_a_whole_one(engine, given.rounds)}, indent=2))


def beside_a_whole_one(engine: LocalEngine, rounds: int) -> list[dict[str, Any]]:
    """A line for each share of the positions: milliseconds, and the ratio to a whole step."""
    model, length = engine.model, engine.info.canvas_length
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, engine.info.vocab_size, (1, PREFIX + length), generator=draw)
    cache = model.new_cache(1)
    model.encode(ids[:, :PREFIX], cache)
    canvas, sequence, kept = ids[0, PREFIX:], cache.sequences[0], CanvasKeys()
    soft = torch.randn(length, model.config.hidden_size, generator=draw).to(model.dtype)
    degree, uniform = torch.tensor([0.8]), torch.rand(length, generator=draw)

    def whole() -> None:
        hidden = model.denoise_hidden(canvas[None], KVCache([sequence]), soft[None])
        model.head(hidden, degree, uniform[None], [None])

    def part(places: torch.Tensor) -> Callable[[], None]:
        def step() -> None:
            hidden = denoise_some(model, canvas[places], places, sequence, kept, soft[places])
            model.head(hidden[None], degree, uniform[None, places], [None])

        return step

    everywhere = torch.arange(length)
    denoise_some(model, canvas, everywhere, sequence, kept, soft)
    shuffled = torch.randperm(length, generator=draw)
    parts = {share: part(shuffled[: round(share * length)].sort().values) for share in COMPUTED}
    taken: dict[float, list[float]] = {share: [] for share in COMPUTED}
    ratios: dict[float, list[float]] = {share: [] for share in COMPUTED}
    for number in range(rounds + 1):
        beside = seconds(whole)
        for share, step in parts.items():
            found = seconds(step)
            if number:
                taken[share].append(found)
                ratios[share].append(found / beside)
    return [
        {
            "computed": share,
            "ms": 1000 * statistics.median(taken[share]),
            "ratio": statistics.median(ratios[share]),
            "interval": interval_of_median(ratios[share]),
        }
        for share in COMPUTED
    ]


def seconds(call: Callable[[], None]) -> float:
    """Of one call."""
    began = time.perf_counter()
    with torch.no_grad():
        call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
