"""What a constraint costs at a real vocabulary: to compile, to keep, and in every denoising step.

    python benchmarks/steering.py MODEL --out steering.json
    python benchmarks/steering.py MODEL --shape full --layers 2 --only steps

MODEL is a directory with a tokenizer of 262,144 tokens, and a model of any size. Each case is compiled in a process of
its own, with nothing kept but the vocabulary; the first use of a tokenizer is measured without that. Steps run in one
process, free and constrained turn about.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from steering_cases import BOUNDS_S, cases, tools

from redraft.bench.machine import cpu_name, others_share
from redraft.core.options import GenerationOptions
from redraft.engine.load import load


def main() -> None:
    """Measures, and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", choices=("compile", "steps", "beside"))
    parser.add_argument("--shape", help="random weights of a published shape in the model's place, for the steps")
    parser.add_argument("--layers", type=int, help="of the shape, instead of its own")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(compiled(arguments.model, arguments.case)))
        return
    report: dict[str, Any] = {"cpu": cpu_name(), "torch": torch.__version__, "others_share": others_share()}
    if arguments.only in (None, "compile"):
        report["vocabulary"], report["compile"] = vocabulary(arguments.model), []
        for name in BOUNDS_S:
            report["compile"].append(in_a_process(arguments.model, name))
        show("compiling, one thread", report["compile"])
        print(json.dumps(report["vocabulary"]))
    if arguments.only in (None, "steps"):
        report["steps"] = steps(arguments)
        show("steps", report["steps"])
    if arguments.only in (None, "beside"):
        report["beside"] = beside(arguments)
        show("others' time to their first canvas", [report["beside"]])
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A table of rows."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:,.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(table)


def in_a_process(model: Path, case: str, **environment: str) -> dict[str, Any]:
    """One case, in a process that has compiled nothing yet."""
    command = [sys.executable, __file__, str(model), "--case", case]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    return json.loads(done.stdout.splitlines()[-1])


def vocabulary(model: Path) -> dict[str, float]:
    """Seconds of a tokenizer's first use, and in later processes."""
    with tempfile.TemporaryDirectory() as folder:
        # Kernels are built by the case that follows; the vocabulary is read by each.
        in_a_process(model, "one integer", XDG_CACHE_HOME=folder)
        for kept in (Path(folder) / "redraft" / "vocabularies").glob("*.npz"):
            kept.unlink()
        first, later = (in_a_process(model, "one integer", XDG_CACHE_HOME=folder) for _ in range(2))
    return {"first_s": first["vocabulary_s"], "later_s": later["vocabulary_s"]}


def compiled(model: Path, case: str) -> dict[str, Any]:
    """One case: processor seconds cold and warm, sizes, and memory beside what a plain request had."""
    from redraft.text.constraint import ConstraintFactory
    from redraft.text.tokenizer import Tokenizer

    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_directory(model)
    assert tokenizer is not None
    ends = sorted(tokenizer.end_of_turn_ids())
    text = json.loads((model / "config.json").read_text(encoding="utf-8"))
    size = text.get("text_config", text)["vocab_size"]
    factory = ConstraintFactory(tokenizer, ends, 0, ends[0], size)
    vocabulary_s = seconds(lambda: factory.vocabulary.trees)
    before = peak_mb(anew=True)
    options = GenerationOptions(**cases()[case])
    cold = seconds(lambda: factory.of(options))
    warm = min(seconds(lambda: factory.of(options)) for _ in range(5))
    automaton = factory.of(options).automaton
    parts = automaton.parts
    return {
        "case": case,
        "cold_s": cold,
        "bound_s": BOUNDS_S[case],
        "warm_ms": 1e3 * warm,
        "vocabulary_s": vocabulary_s,
        "states": automaton.num_states,
        "edges": len(automaton.edges.source),
        "classes": automaton.num_classes,
        "explicit": len(parts.ids),
        "broad": len(parts.broad),
        "memory_mb": peak_mb() - before,
    }


def peak_mb(*, anew: bool = False) -> float:
    """The largest resident set; from what there is now on, if it is taken anew (Linux only)."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    kilobytes = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    return int(kilobytes) * 1024 / 1e6


def seconds(work: Any) -> float:
    """Processor seconds."""
    began = time.process_time()
    work()
    return time.process_time() - began


def steps(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds of a step, free and constrained, turn about."""
    from redraft.bench.shapes import shape_directory

    names = ["five tools", "thirty tools", "128 tools", "ten nested fields", "ten strings of 80, one of 2,000"]
    small = load(arguments.model, device="cpu", dtype=arguments.dtype, threads=1)
    model = small.model
    if arguments.shape:
        changes = {} if arguments.layers is None else {"num_hidden_layers": arguments.layers}
        form = "int4" if arguments.dtype == "int4" else None
        directory = shape_directory(arguments.shape, form, lambda *_: None, **changes)
        model = load(directory, device="cpu", dtype=arguments.dtype, threads=1).model
    rows = []
    for name in names:
        constraint = small.admission.constraints.of(GenerationOptions(**cases()[name]))
        rows.append(step(model, constraint.automaton, name, arguments.repetitions))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def step(model: Any, automaton: Any, name: str, repetitions: int) -> dict[str, Any]:
    """One constraint beside free steps of the same canvas."""
    from redraft.kernels.constrained import draw
    from redraft.sampler import constrained
    from redraft.sampler.accept import accept, renoise

    L, V = model.config.canvas_length, model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(0, V, (1, L), generator=generator)
    uniform, noise = torch.rand(2, L, generator=generator), torch.randint(0, V, (1, L), generator=generator)
    cache = model.new_cache(1)
    model.encode(torch.randint(0, V, (1, 40), generator=generator), cache)
    temperature = torch.tensor([0.6])
    used, end = constrained.ends(automaton, max(2 * L, int(automaton.shortest[automaton.start])), L)

    def taken(parts: Any) -> None:
        stats = model.head(model.denoise_hidden(canvas, cache), temperature, uniform[:1], [parts])
        if parts is not None:
            draw(stats.classes[0], 0.6, automaton, automaton.start, end, used, uniform)
        renoise(accept(stats.entropy, 0.1), stats.sample, noise)

    times: dict[str, list[float]] = {"free": [], "held": []}
    for round_number in range(repetitions + 1):
        for kind, parts in (("free", None), ("held", automaton.parts)):
            began = time.perf_counter()
            taken(parts)
            if round_number:
                times[kind].append(1e3 * (time.perf_counter() - began))
    ratios = np.array(times["held"]) / np.array(times["free"])
    return {
        "constraint": name,
        "edges": len(automaton.edges.source),
        "free_ms": statistics.median(times["free"]),
        "held_ms": statistics.median(times["held"]),
        "ratio": float(np.median(ratios)),
    }


def beside(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds to a free request's first canvas: alone, while 128 tools are compiled once, and again and again."""
    engine = load(arguments.model, device="cpu", dtype=arguments.dtype, threads=1)
    factory = engine.admission.constraints
    made = 0

    def compile_tools(ended: threading.Event | None) -> None:
        nonlocal made
        while True:
            # Names that were never asked for, so that nothing is kept.
            factory.of(GenerationOptions(tools=tools(128, suffix=f"_{made}")))
            made += 1
            if ended is None or ended.is_set():
                return

    times: dict[str, list[float]] = {"alone": [], "once": [], "over and over": []}
    for round_number in range(arguments.repetitions + 1):
        for kind, taken in times.items():
            ended = threading.Event()
            thread = threading.Thread(target=compile_tools, args=(ended if kind == "over and over" else None,))
            if kind != "alone":
                thread.start()
            # Twelve steps, as mini takes in the mean.
            done = engine.generate("hello", seed=round_number, max_denoising_steps=12, confidence_threshold=0)
            ended.set()
            if kind != "alone":
                thread.join()
            if round_number:
                taken.append(done.stats.time_to_first_canvas_s)
    alone = np.array(times["alone"])
    return {
        "alone_s": statistics.median(times["alone"]),
        "once, ratio": float(np.median(np.array(times["once"]) / alone)),
        "over and over, ratio": float(np.median(np.array(times["over and over"]) / alone)),
        "compiled": made,
    }


if __name__ == "__main__":
    main()
