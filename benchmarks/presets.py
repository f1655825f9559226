"""What the presets and modes measure on mini's task, side by side; writes what `redraft presets` prints.

python benchmarks/presets.py data/mini/snips.test.jsonl --limit 200 --out src/redraft/models/mini/presets.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import redraft
from redraft.core.presets import PRESETS
from redraft.eval.data import read_rows
from redraft.eval.tool_calls import evaluate

KEPT = ("exact_match", "valid_calls", "denoising_steps_per_canvas", "tokens_per_forward", "seconds_per_request", "n")


def main() -> None:
    """Runs the variants one after the other on the same rows and seeds, on one thread in float32."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = read_rows(arguments.data)
    engine = redraft.load("mini", dtype="float32", threads=1)
    tools = engine.defaults.options.tools
    variants: dict[str, dict[str, Any]] = {name: {"preset": name} for name in PRESETS}
    variants["default"] = {}
    variants["required, seven tools"] = {"tools": tools, "tool_choice": "required"}
    variants["adaptive canvas alone"] = {"adaptive_canvas": True}
    variants["redraft alone"] = {"redraft": 1}
    variants["autoregressive, greedy"] = {"mode": "autoregressive", "temperature": 0}
    variants["verified, greedy"] = {"mode": "verified", "temperature": 0}
    found: dict[str, Any] = {}
    for name, options in variants.items():
        measures = evaluate(engine, rows, limit=arguments.limit, options=options)
        found[name] = {key: measures[key] for key in KEPT}
        print(name, json.dumps(found[name]), flush=True)
        command = f"python benchmarks/presets.py {arguments.data.name} --limit {arguments.limit}"
        task = f"{arguments.limit} held-out SNIPS requests, evenly spaced, mini in float32 on one thread"
        document = {"task": task, "command": command, "presets": found}
        arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
