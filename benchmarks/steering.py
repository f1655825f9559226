"""What a constraint costs a denoising step, by the number of states of its automaton.

    python benchmarks/steering.py --out steering.json

Patterns and schemas over a model's tokens, each beside a plain step, turn about, so that both meet the same noise. A
steered step is the whole of it: the model, the head with the scores of the automaton's classes, and the draw, which is
the joint sample, the joint argmax and the entropies of one canvas.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import redraft
from redraft.bench.machine import cpu_name
from redraft.kernels.constrained import draw
from redraft.sampler import constrained
from redraft.sampler.accept import accept, renoise


def main() -> None:
    """Measures every constraint, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    engine = redraft.load(arguments.model, dtype="float32", threads=arguments.threads)
    rows = []
    for name, options in _constraints():
        prepared = engine.prepare("rate this book five of six", **options)
        found = _measured(engine, prepared.sequence.constraint.automaton, arguments.repetitions)
        rows.append({"constraint": name, **found})
        print(json.dumps(rows[-1]), flush=True)
    report = {"cpu": cpu_name(), "torch": torch.__version__, "threads": arguments.threads, "rows": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table = Table(
        "constraint", "states", "edges", "classes", "broad", "draw ms", "steered step ms", "plain step ms", "ratio"
    )
    for row in rows:
        table.add_row(*(str(row[key]) for key in row))
    Console().print(table)


def _constraints() -> list[tuple[str, dict[str, Any]]]:
    """(name, options), from few states to many."""

    def one_of(count: int) -> dict[str, Any]:
        return {"type": "json_schema", "schema": {"enum": [f"value {place * 7919 % 10007}" for place in range(count)]}}

    def fields(count: int) -> dict[str, Any]:
        properties = {f"field_{place}": {"type": "string", "maxLength": 12} for place in range(count)}
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        return {"type": "json_schema", "schema": schema}

    plain: dict[str, Any] = {"tools": None}
    return [
        ("a digit", {"response_format": {"type": "regex", "pattern": "[0-9]"}, **plain}),
        *((f"one of {n} words", {"response_format": one_of(n), **plain}) for n in (10, 100, 1000)),
        *((f"an object of {n} strings", {"response_format": fields(n), **plain}) for n in (1, 2, 3)),
        ("the seven SNIPS tools", {"tool_choice": "required"}),
    ]  # fmt: skip


def _measured(engine: Any, automaton: Any, repetitions: int) -> dict[str, Any]:
    model = engine.model
    L, V = model.config.canvas_length, model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(0, V, (1, L), generator=generator)
    uniform, noise = torch.rand(2, L, generator=generator), torch.randint(0, V, (1, L), generator=generator)
    cache = model.new_cache(1)
    model.encode(torch.randint(0, V, (1, 40), generator=generator), cache)
    temperature = torch.tensor([0.6])
    used, end = constrained.ends(automaton, max(L, int(automaton.shortest[automaton.start])), L)

    def plain() -> None:
        stats = model.head(model.denoise_hidden(canvas, cache), temperature, uniform[:1])
        renoise(accept(stats.entropy, 0.1), stats.sample, noise)

    drawing: list[float] = []

    def steered() -> None:
        stats = model.head(model.denoise_hidden(canvas, cache), temperature, uniform[:1], [automaton.parts])
        began = time.perf_counter()
        draw(stats.classes[0], 0.6, automaton, automaton.start, end, used, uniform)
        drawing.append(1e3 * (time.perf_counter() - began))
        renoise(accept(stats.entropy, 0.1), stats.sample, noise)

    times: dict[Callable[[], None], list[float]] = {plain: [], steered: []}
    for work in times:
        work()
    for _ in range(repetitions):
        for work, taken in times.items():
            began = time.perf_counter()
            work()
            taken.append(1e3 * (time.perf_counter() - began))
    step_ms, steered_ms = (statistics.median(times[work]) for work in (plain, steered))
    return {
        "states": automaton.num_states,
        "edges": len(automaton.edges.source),
        "classes": automaton.num_classes,
        "broad": len(automaton.parts.broad),
        "draw_ms": round(statistics.median(drawing[1:]), 2),
        "steered_ms": round(steered_ms, 2),
        "step_ms": round(step_ms, 2),
        "ratio": round(steered_ms / step_ms, 2),
    }


if __name__ == "__main__":
    main()
