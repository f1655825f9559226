"""Quality against what it costs: every sampler and stop, and the three modes, on the same rows with the same seeds.

    python benchmarks/steps.py --out steps [--model mini] [--data rows.jsonl] [--limit 200] [--only "1 nat" causal]

Writes `steps.jsonl` (a line for each rule and row: what is there already is not run again), `steps.md` and `steps.png`.
Each rule is compared with the reference's, row by row: a bootstrap interval of the difference, McNemar's exact test.
A forward is a pass through the layers; its positions are what a machine that computes pays for, its number what one
that waits for memory does. For texts of several canvases: `long_texts.py`.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from step_rules import COST_HEAD, REFERENCE, RULES, cost_cells, plot, run, work

import redraft
from redraft.checkpoint.locate import locate
from redraft.core.results import Generation
from redraft.eval.answers import evenly
from redraft.eval.data import Row, read_rows
from redraft.eval.paired import bootstrapped, mcnemar
from redraft.eval.tool_calls import grade


def graded(row: Row, reply: Generation) -> dict[str, Any]:
    """Whether a reply is the row's call, and which calls it made."""
    return {
        "right": grade([(row, reply)], {})["exact_match"] == 1,
        "calls": [[call.name, call.arguments] for call in reply.tool_calls],
    }


def compared(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A line for each rule."""
    base = [row["right"] for row in found[REFERENCE]]
    lines = []
    for name, rows in found.items():
        right = [row["right"] for row in rows]
        differences = [float(now) - float(before) for now, before in zip(right, base, strict=True)]
        difference, low, high = bootstrapped(differences)
        won, lost = differences.count(1.0), differences.count(-1.0)
        lines.append({
            "rule": name, "right": sum(right) / len(right), "difference": difference, "low": low, "high": high,
            "won": won, "lost": lost, "p": mcnemar(lost, won), **work(rows),
        })  # fmt: skip
    return lines


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown."""
    head = f"| rule | n | exact match | against the reference, points | won : lost, p | {COST_HEAD} |"
    found = [head, "|" + "---|" * (head.count("|") - 1)]
    for x in lines:
        found.append(
            f"| {x['rule']} | {x['n']} | {x['right']:.3f} | {100 * x['difference']:+.1f} "
            f"[{100 * x['low']:+.1f}, {100 * x['high']:+.1f}] | {x['won']} : {x['lost']}, {x['p']:.2g} "
            f"| {cost_cells(x)} |"
        )
    return "\n".join(found)


def main() -> None:
    """Runs what is missing, and writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, help="unset, the rows that the model brings along")
    parser.add_argument("--limit", type=int, help="rows, evenly spaced; unset, all")
    parser.add_argument("--only", nargs="+", choices=RULES, default=list(RULES), metavar="RULE")
    parser.add_argument("--dtype", help="unset, the model's own")
    parser.add_argument("--quantize", help="unset, as it is stored")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="path without an end")
    given = parser.parse_args()
    rows = evenly(read_rows(given.data or locate(given.model) / "held_out.jsonl"), given.limit)
    rows = [row for row in rows if row.calls]
    form = {name: getattr(given, name) for name in ("dtype", "quantize") if getattr(given, name) is not None}
    engine = redraft.load(given.model, threads=given.threads, prefix_cache_mb=0, **form)
    rules = {name: RULES[name] for name in dict.fromkeys([REFERENCE, *given.only])}
    found = run(engine, given.out.with_suffix(".jsonl"), rules, rows, graded)
    lines = compared(found)
    what = f"{date.today()}, {engine.info.name}, {engine.info.dtype}, {given.quantize or 'as it is stored'}, "
    what += f"{platform.machine()}, torch {torch.__version__}, {given.threads} thread(s), {len(rows)} requests"
    text = f"{what}\n\n{table(lines)}\n"
    given.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    plot(given.out.with_suffix(".png"), lines, "exact match against the reference's rule, points, 95 %", scale=100)


if __name__ == "__main__":
    main()
