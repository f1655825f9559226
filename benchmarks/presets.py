"""What the presets and modes measure on a model's task; writes what `redraft presets` prints.

python benchmarks/presets.py --out src/redraft/models/mini/presets.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redraft
from redraft.checkpoint.locate import locate
from redraft.core.engine import Engine
from redraft.core.presets import PRESETS
from redraft.eval.data import Row, read_rows
from redraft.eval.tool_calls import evaluate

KEPT = ("exact_match", "valid_calls", "denoising_steps_per_canvas", "tokens_per_forward", "n")


def variants(tools: Any) -> dict[str, dict[str, Any]]:
    """Options by name; those of calls only where the model knows some by heart."""
    found: dict[str, dict[str, Any]] = {"default": {}} | {name: {"preset": name} for name in PRESETS}
    if tools:
        found["required"] = {"tools": tools, "tool_choice": "required"}
    found["adaptive canvas alone"] = {"adaptive_canvas": True}
    found["redraft alone"] = {"redraft": 1}
    found["autoregressive, greedy"] = {"mode": "autoregressive", "temperature": 0}
    found["verified, greedy"] = {"mode": "verified", "temperature": 0}
    return found


def seconds(engine: Engine, rows: Sequence[Row], options: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds a request by variant, one request at a time and the variants turn about, so that what else the machine
    does meets them all alike."""
    taken = dict.fromkeys(options, 0.0)
    for seed, row in enumerate(rows):
        for name, given in options.items():
            began_s = time.perf_counter()
            engine.generate(list(row.prompt), seed=seed, **given)
            taken[name] += time.perf_counter() - began_s
    return {name: total / len(rows) for name, total in taken.items()}


def main() -> None:
    """Quality of each variant on all rows with the same seeds, then their times turn about on some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, help="unset, the rows that the model brings along")
    parser.add_argument("--limit", type=int, help="rows, evenly spaced; unset, all")
    parser.add_argument("--timed", type=int, default=60, help="rows that are timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = read_rows(arguments.data or locate(arguments.model) / "held_out.jsonl")
    engine = redraft.load(arguments.model, threads=arguments.threads)
    options = variants(engine.info.defaults.get("tools"))
    found: dict[str, Any] = {}
    for name, given in options.items():
        measures = evaluate(engine, rows, limit=arguments.limit, options=given)
        found[name] = {key: measures[key] for key in KEPT}
        print(name, json.dumps(found[name]), flush=True)
    few = [rows[i * len(rows) // arguments.timed] for i in range(arguments.timed)]
    for name, taken_s in seconds(engine, few, options).items():
        found[name]["seconds_per_request"] = taken_s
        print(name, f"{taken_s:.3f} s", flush=True)
    count = found["default"]["n"]
    task = f"{count} held-out requests in {engine.info.dtype}, {arguments.threads} thread(s); {arguments.timed} timed"
    data = "" if arguments.data is None else f" --data {arguments.data.name}"
    limit = "" if arguments.limit is None else f" --limit {arguments.limit}"
    command = f"python benchmarks/presets.py --model {arguments.model}{data}{limit} --out FILE"
    document = {"task": task, "command": command, "presets": found}
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
