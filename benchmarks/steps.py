"""Quality against what it costs: every sampler and stop, and the three modes, on the same rows with the same seeds.

    python benchmarks/steps.py --out steps [--model mini] [--data rows.jsonl] [--limit 200] [--only default fast]

Writes `steps.jsonl` (a line for each rule and row: what is there already is not run again), `steps.md` and `steps.png`.
Each rule is compared with the reference's, row by row: a bootstrap interval of the difference, McNemar's exact test.
A forward is a pass through the layers; its positions are what a machine that computes pays for, its number what one
that waits for memory does.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import redraft
from redraft.checkpoint.locate import locate
from redraft.core.engine import Engine
from redraft.core.errors import RedraftError
from redraft.eval.answers import evenly
from redraft.eval.data import Row, read_rows
from redraft.eval.paired import mcnemar
from redraft.eval.tool_calls import grade

REFERENCE = "reference"
RULES: dict[str, dict[str, Any]] = {
    REFERENCE: {"settled_nats": 0.0, "settled_steps": 0},
    "default": {},
    "fast": {"preset": "fast"},
    "0.5 nats": {"settled_nats": 0.5, "settled_steps": 0},
    "1 nat": {"settled_nats": 1.0, "settled_steps": 0},
    "2 nats": {"settled_nats": 2.0, "settled_steps": 0},
    "4 nats": {"settled_nats": 4.0, "settled_steps": 0},
    "3 steps": {"settled_nats": 0.0, "settled_steps": 3},
    "6 steps": {"settled_nats": 0.0, "settled_steps": 6},
    "bound 0.5": {"entropy_bound": 0.5},
    "bound 1": {"entropy_bound": 1.0},
    "at most 8": {"max_denoising_steps": 8},
    "confidence 0.98": {"sampler": "confidence", "threshold": 0.98},
    "confidence 0.95": {"sampler": "confidence", "threshold": 0.95},
    "confidence 0.9": {"sampler": "confidence", "threshold": 0.9},
    "confidence 0.6": {"sampler": "confidence", "threshold": 0.6},
    "causal": {"mode": "autoregressive", "temperature": 0},
    "verified": {"mode": "verified", "temperature": 0},
}
_LEVEL, _RESAMPLES = 0.95, 4000


class Counter:
    """Counts a model's passes and their positions."""

    def __init__(self, engine: Engine) -> None:
        self.forwards = self.positions = 0
        self._layer = engine.model.backbone.layers[0]
        self._layer.register_forward_pre_hook(self._count)

    def _count(self, _: Any, given: tuple[Any, ...]) -> None:
        self.forwards += 1
        self.positions += given[0].shape[0] * given[0].shape[1]

    def taken(self) -> tuple[int, int]:
        """(forwards, positions) since it was last asked."""
        found, self.forwards, self.positions = (self.forwards, self.positions), 0, 0
        return found


def rows_of(
    engine: Engine, counter: Counter, rows: Sequence[Row], name: str, have: Mapping[tuple[str, int], Any]
) -> Iterator[dict[str, Any]]:
    """What a rule makes of each row that is not there yet."""
    options = RULES[name]
    for number, row in enumerate(rows):
        if (name, number) in have:
            continue
        counter.taken()
        began_s = time.perf_counter()
        reply = engine.generate(list(row.prompt), seed=number, **options)
        taken_s = time.perf_counter() - began_s
        forwards, positions = counter.taken()
        stats = reply.stats
        yield {
            "rule": name, "row": number, "right": grade([(row, reply)], {})["exact_match"] == 1, "text": reply.text,
            "calls": [[call.name, call.arguments] for call in reply.tool_calls],
            "steps": stats.denoising_steps, "canvases": stats.canvases, "tokens": stats.generated_tokens,
            "at_the_cap": stats.denoising_steps >= engine.info.defaults["max_denoising_steps"] * max(1, stats.canvases),
            "forwards": forwards, "positions": positions, "repeats": stats.repeats, "seconds": taken_s,
        }  # fmt: skip


def compared(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A line for each rule."""
    base = np.array([row["right"] for row in found[REFERENCE]], dtype=float)
    generator = np.random.default_rng(0)
    lines = []
    for name, rows in found.items():
        right = np.array([row["right"] for row in rows], dtype=float)
        n = len(right)
        again = generator.integers(n, size=(_RESAMPLES, n))
        outside = (1 - _LEVEL) / 2
        low, high = np.quantile((right - base[:n])[again].mean(1), [outside, 1 - outside])
        won, lost = int((right > base[:n]).sum()), int((right < base[:n]).sum())
        canvases, tokens = (sum(row[key] for row in rows) for key in ("canvases", "tokens"))
        lines.append({
            "rule": name, "n": n, "right": right.mean(), "difference": (right - base[:n]).mean(), "low": low,
            "high": high, "won": won, "lost": lost, "p": mcnemar(lost, won),
            "steps": sum(row["steps"] for row in rows) / canvases if canvases else None,
            "cap": sum(row["at_the_cap"] for row in rows) / canvases if canvases else None,
            "forwards": sum(row["forwards"] for row in rows) / n,
            "positions": sum(row["positions"] for row in rows) / max(1, tokens),
            "ms": 1000 * float(np.median([row["seconds"] for row in rows])),
        })  # fmt: skip
    return lines


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """In Markdown."""
    head = "| rule | n | exact match | against the reference, points | won : lost, p | steps a canvas | at the cap "
    head += "| forwards a reply | position-forwards a token | ms a reply, median |"
    found = [head, "|---|---|---|---|---|---|---|---|---|---|"]
    for x in lines:
        steps, cap = ("-" if x[key] is None else form.format(x[key]) for key, form in _FORMS)
        found.append(
            f"| {x['rule']} | {x['n']} | {x['right']:.3f} | {100 * x['difference']:+.1f} "
            f"[{100 * x['low']:+.1f}, {100 * x['high']:+.1f}] | {x['won']} : {x['lost']}, {x['p']:.2g} | {steps} "
            f"| {cap} | {x['forwards']:.1f} | {x['positions']:.0f} | {x['ms']:.0f} |"
        )
    return "\n".join(found)


_FORMS = (("steps", "{:.1f}"), ("cap", "{:.1%}"))


def plot(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Quality over forwards a reply and over position-forwards a token."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained", sharey=True)
    names = (("forwards", "forwards a reply"), ("positions", "position-forwards a token"))
    for axis, (key, label) in zip(axes, names, strict=True):
        for x in lines:
            mode = x["rule"] in ("causal", "verified")
            axis.errorbar(
                x[key], 100 * x["difference"], fmt="s" if mode else "o", color="C1" if mode else "C0", markersize=5,
                yerr=[[100 * (x["difference"] - x["low"])], [100 * (x["high"] - x["difference"])]], elinewidth=0.6,
            )  # fmt: skip
            axis.annotate(
                x["rule"], (x[key], 100 * x["difference"]), fontsize=8, xytext=(4, 4), textcoords="offset points"
            )
        axis.axhline(0, color="0.8", linewidth=1, zorder=0)
        axis.set(xlabel=label, xscale="log")
    axes[0].set_ylabel("exact match against the reference's rule, points, 95 %")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Runs what is missing, and writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, help="unset, the rows that the model brings along")
    parser.add_argument("--limit", type=int, help="rows, evenly spaced; unset, all")
    parser.add_argument("--only", nargs="+", choices=RULES, default=list(RULES), metavar="RULE")
    parser.add_argument("--dtype", help="unset, the model's own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="path without an end")
    given = parser.parse_args()
    rows = evenly(read_rows(given.data or locate(given.model) / "held_out.jsonl"), given.limit)
    rows = [row for row in rows if row.calls]
    dtype = {} if given.dtype is None else {"dtype": given.dtype}
    # Rules that share a prompt must each pay for it.
    engine = redraft.load(given.model, threads=given.threads, prefix_cache_mb=0, **dtype)
    counter = Counter(engine)
    log = given.out.with_suffix(".jsonl")
    have = {(x["rule"], x["row"]): x for x in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    with log.open("a", encoding="utf-8") as out:
        for name in dict.fromkeys([REFERENCE, *given.only]):
            try:
                for line in rows_of(engine, counter, rows, name, have):
                    have[name, line["row"]] = line
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
            except RedraftError as error:
                print(f"{name}: left out: {error}")
            out.flush()
            print(name, flush=True)
    found = {name: [have[name, n] for n in range(len(rows)) if (name, n) in have] for name in RULES}
    lines = compared({name: each for name, each in found.items() if len(each) == len(rows)})
    what = f"{date.today()}, {engine.info.name}, {engine.info.dtype}, {platform.machine()}, torch {torch.__version__}"
    text = f"{what}, {given.threads} thread(s), {len(rows)} requests\n\n{table(lines)}\n"
    given.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    plot(given.out.with_suffix(".png"), lines)


if __name__ == "__main__":
    main()
