"""How the cost of a denoising step grows: with canvas positions, prompt length, batch size and number of experts.

    python benchmarks/growth.py --out benchmarks/growth.json --plot benchmarks/growth.png

Random weights at the `mid` shape, one thing changed at a time. Each figure is the median of several steps of the
whole step: backbone, head, accept, renoise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from redraft.bench.machine import cpu_name, others_share
from redraft.bench.shapes import shape_directory
from redraft.checkpoint.load import load_model
from redraft.core.allocator import keep_freed_memory
from redraft.model.model import DiffusionGemma
from redraft.sampler.accept import accept, renoise

POSITIONS = (32, 64, 128, 256, 512)
PROMPTS = (128, 512, 2048, 8192, 32768)
BATCHES = (1, 2, 4, 8)
EXPERTS = (8, 16, 32, 64, 128)
CHUNK = 1024


def main() -> None:
    """Measures all four and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "int8"), default="float32")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--longest-prompt", type=int, default=PROMPTS[-1])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    busy = others_share()
    report: dict[str, Any] = {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": arguments.dtype,
        "others_share": busy,
    }
    grower = Grower(arguments.dtype, arguments.repetitions)
    model = grower.load(shape_directory("mid"))
    keep_freed_memory()
    report["canvas_positions"] = [row | {"x": x} for x in POSITIONS for row in [grower.step(model, positions=x)]]
    prompts = [x for x in PROMPTS if x <= arguments.longest_prompt]
    report["prompt_tokens"] = [row | {"x": x} for x in prompts for row in [grower.step(model, prompt=x)]]
    report["batch_size"] = [row | {"x": x} for x in BATCHES for row in [grower.step(model, batch=x)]]
    del model
    report["num_experts"] = []
    for count in EXPERTS:
        model = grower.load(shape_directory("mid", num_experts=count))
        report["num_experts"].append(grower.step(model) | {"x": count})
        del model
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(report, arguments.plot)


class Grower:
    """Times steps of one kind of model."""

    def __init__(self, dtype: str, repetitions: int) -> None:
        self.quantize = "int8" if dtype == "int8" else None
        self.dtype = torch.float32 if dtype == "int8" else getattr(torch, dtype)
        self.repetitions = repetitions

    def load(self, directory: Path) -> DiffusionGemma:
        """The model of a checkpoint directory."""
        return load_model(directory, dtype=self.dtype, quantize=self.quantize)

    def step(self, model: DiffusionGemma, *, positions: int = 256, prompt: int = 128, batch: int = 1) -> dict[str, Any]:
        """Seconds of a step, and of encoding what lies before it."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = model.config.vocab_size
        cache = model.new_cache(batch, prompt + positions)
        started = time.perf_counter()
        for chunk in torch.randint(3, vocabulary, (batch, prompt), generator=generator).split(CHUNK, dim=1):
            model.encode(chunk, cache)
        encode_s = time.perf_counter() - started
        canvas = torch.randint(3, vocabulary, (batch, positions), generator=generator)
        temperature, soft, seconds = torch.full((batch,), 0.6), None, []
        for _ in range(self.repetitions + 1):
            started = time.perf_counter()
            hidden = model.denoise_hidden(canvas, cache, soft)
            stats = model.head(hidden, temperature, torch.rand(batch, positions, generator=generator))
            accepted = accept(stats.entropy, torch.full((batch, 1), 0.1))
            fresh = torch.randint(3, vocabulary, (batch, positions), generator=generator)
            canvas, soft = renoise(accepted, stats.sample, fresh), stats.soft_embedding
            seconds.append(time.perf_counter() - started)
        row = {
            "step_s": statistics.median(seconds[1:]),
            "step_s_least": min(seconds[1:]),
            "step_s_largest": max(seconds[1:]),
            "encode_s": encode_s,
        }
        print(f"positions {positions}, prompt {prompt}, batch {batch}: {row['step_s']:.3f} s", file=sys.stderr)
        return row


def plot(report: dict[str, Any], path: Path) -> None:
    """Four panels; a dashed line shows what growth in proportion to the first point would be."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 4, figsize=(18, 4))
    names = ("canvas_positions", "prompt_tokens", "batch_size", "num_experts")
    for axes, name in zip(panels, names, strict=True):
        rows: Sequence[dict[str, Any]] = report[name]
        x, y = [row["x"] for row in rows], [row["step_s"] for row in rows]
        axes.loglog(x, y, "o-", base=2)
        axes.loglog(x, [y[0] * value / x[0] for value in x], "--", color="grey", base=2)
        axes.set_xlabel(name.replace("_", " "))
        axes.set_xticks(x, [str(value) for value in x])
    panels[0].set_ylabel("seconds a denoising step")
    figure.suptitle(f"mid shape, {report['dtype']}, {report['threads']} threads of {report['cpu']}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
