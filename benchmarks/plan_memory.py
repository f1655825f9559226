"""Is the plan's memory what a run then uses?

    python benchmarks/plan_memory.py mini mid                    # and `full`, where there is room for it
    python benchmarks/plan_memory.py full --memory 9             # with experts left on disk

Each case is a process of its own: it loads the model, answers a prompt with one canvas and says what it held at most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from redraft.bench.shapes import shape_directory
from redraft.checkpoint.locate import locate
from redraft.checkpoint.offload import BUFFERS
from redraft.checkpoint.source import Source
from redraft.engine.footprint import kv_bytes, weight_bytes, workspace_bytes
from redraft.engine.offload import form_in_memory

RUN = """
import json, sys
import redraft
from redraft.bench.memory import peak_bytes, reset_peak
path, dtype, quantize, memory, tokens = json.loads(sys.argv[1])
engine = redraft.load(path, dtype=dtype, quantize=quantize, memory_gb=memory)
loading = peak_bytes()
reset_peak()
options = {"max_new_tokens": engine.model.config.canvas_length, "max_denoising_steps": 3, "confidence_threshold": 1e-30}
engine.generate([5 + i % 50 for i in range(tokens)], seed=0, **options)
kinds = [type(layer.experts).__name__ for layer in engine.model.backbone.layers]
print(json.dumps({"loading": loading, "running": peak_bytes(), "streamed": kinds.count("StreamedExperts")}))
"""
# (dtype, quantize); the released shape is made in int4 only.
FORMS = (("float32", None), ("float32", "int8"), ("float32", "int4"), ("bfloat16", None), ("bfloat16", "int8"))


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=["mini", "mid", "full"])
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[128, 1500])
    parser.add_argument("--memory", type=float, default=None)
    arguments = parser.parse_args()
    found = []
    for name in arguments.models:
        for dtype, quantize in FORMS if name != "full" else FORMS[2:3]:
            path = locate(name) if name == "mini" else shape_directory(name, "int4" if quantize == "int4" else None)
            for tokens in arguments.prompt_tokens:
                found.append(case(path, name, dtype, quantize, arguments.memory, tokens))
                print(found[-1], file=sys.stderr)
    print(json.dumps(found, indent=2))


def case(path: Path, name: str, dtype: str, quantize: str | None, memory: float | None, tokens: int) -> dict:
    """What was planned and what was used, in bytes."""
    argument = json.dumps([str(path), dtype, quantize, memory, tokens])
    done = subprocess.run([sys.executable, "-c", RUN, argument], capture_output=True, text=True, check=True)
    used = json.loads(done.stdout)
    source, kind = Source.open(path), getattr(torch, dtype)
    config, form = source.config, form_in_memory(source, kind, quantize)
    experts, others = weight_bytes(config, form, on_cpu=True, itemsize=kind.itemsize)
    layers, streamed = config.num_hidden_layers, used["streamed"]
    if streamed:
        experts = experts * (layers - streamed + BUFFERS) // layers
    work = workspace_bytes(config, form, context=tokens, batch=1, on_cpu=True, itemsize=kind.itemsize, path=source.path)
    planned = experts + others + sum(work.values()) + kv_bytes(config, context=tokens, batch=1, itemsize=kind.itemsize)
    return {"model": name, "dtype": dtype, "form": form.name, "prompt_tokens": tokens, "planned": planned, **used} | {
        "ratio": planned / used["running"]
    }


if __name__ == "__main__":
    main()
