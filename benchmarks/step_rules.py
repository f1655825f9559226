"""Rules that say which tokens a step takes and when a canvas is done, and what a model makes of rows under each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redraft.core.engine import Engine
from redraft.core.errors import RedraftError
from redraft.core.results import Generation
from redraft.eval.data import Row

REFERENCE = "reference"
_OF_CANVASES: dict[str, dict[str, Any]] = {
    REFERENCE: {"settled_nats": 0.0, "settled_steps": 0},
    "1 nat, 16 steps": {},
    "1.2 nats, 5 steps": {"settled_nats": 1.2, "settled_steps": 5},
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
    "handover 4": {"handover_steps": 4},
    "handover 6": {"handover_steps": 6},
    "handover 8": {"handover_steps": 8},
    "handover 12": {"handover_steps": 12},
    "frozen 0.001": {"freeze_nats": 0.001},
    "frozen 0.01": {"freeze_nats": 0.01},
    "frozen 0.1": {"freeze_nats": 0.1},
    "handover 6, frozen 0.01": {"handover_steps": 6, "freeze_nats": 0.01},
}
# What a model hands over by itself would hide what a rule does.
RULES = {name: {"handover_steps": 0} | options for name, options in _OF_CANVASES.items()} | {
    "causal": {"mode": "autoregressive", "temperature": 0},
    "verified": {"mode": "verified", "temperature": 0},
}

Line = dict[str, Any]


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


def run(
    engine: Engine,
    log: Path,
    rules: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Row],
    measured: Callable[[Row, Generation], Line],
) -> dict[str, list[Line]]:
    """A line for each row under each rule. They stand in `log`, and what stands there already is not run again.

    Args:
        engine: without a prefix cache, so that rules that share a prompt each pay for it.
        log: JSON lines.
        rules: options by name; those that the model cannot have are left out.
        rows: whose number is their seed.
        measured: what is said of a reply beside its cost.
    """
    counter = Counter(engine)
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    have = {(line["rule"], line["row"]): line for line in lines}
    with log.open("a", encoding="utf-8") as out:
        for name, options in rules.items():
            try:
                for number, row in enumerate(rows):
                    if (name, number) in have:
                        continue
                    line = {"rule": name, "row": number, **_taken(engine, counter, row, number, options, measured)}
                    have[name, number] = line
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
                    out.flush()
            except RedraftError as error:
                print(f"{name}: left out: {error}")
            print(name, flush=True)
    found = {name: [have[name, n] for n in range(len(rows)) if (name, n) in have] for name in rules}
    return {name: lines for name, lines in found.items() if len(lines) == len(rows)}


def _taken(
    engine: Engine,
    counter: Counter,
    row: Row,
    seed: int,
    options: Mapping[str, Any],
    measured: Callable[[Row, Generation], Line],
) -> Line:
    counter.taken()
    began_s = time.perf_counter()
    reply = engine.generate(list(row.prompt), seed=seed, **options)
    taken_s = time.perf_counter() - began_s
    forwards, positions = counter.taken()
    stats = reply.stats
    most = options.get("max_denoising_steps", engine.info.defaults["max_denoising_steps"]) * max(1, stats.canvases)
    return {
        "text": reply.text, "steps": stats.denoising_steps, "canvases": stats.canvases, "seconds": taken_s,
        "tokens": stats.generated_tokens, "at_the_cap": stats.denoising_steps >= most, "forwards": forwards,
        "positions": positions, "repeats": stats.repeats, **measured(row, reply),
    }  # fmt: skip


def work(lines: Sequence[Mapping[str, Any]]) -> Line:
    """What a rule cost: steps a canvas, share of replies all of whose canvases are at the cap, forwards a reply,
    position-forwards a token, milliseconds."""
    canvases, tokens = (sum(line[key] for line in lines) for key in ("canvases", "tokens"))
    return {
        "n": len(lines),
        "steps": sum(line["steps"] for line in lines) / canvases if canvases else None,
        "cap": sum(line["at_the_cap"] for line in lines) / len(lines) if canvases else None,
        "forwards": sum(line["forwards"] for line in lines) / len(lines),
        "positions": sum(line["positions"] for line in lines) / max(1, tokens),
        "ms": 1000 * float(np.median([line["seconds"] for line in lines])),
    }


def cost_cells(line: Mapping[str, Any]) -> str:
    """The last columns of a table."""
    steps, cap = ("-" if line[key] is None else form.format(line[key]) for key, form in _FORMS)
    return f"{steps} | {cap} | {line['forwards']:.1f} | {line['positions']:.0f} | {line['ms']:.0f}"


COST_HEAD = (
    "steps a canvas | replies all at the cap | forwards a reply | position-forwards a token | ms a reply, median"
)
_FORMS = (("steps", "{:.1f}"), ("cap", "{:.1%}"))


def plot(path: Path, lines: Sequence[Mapping[str, Any]], label: str, scale: float = 1.0) -> None:
    """What each line's `difference` is, over forwards a reply and over position-forwards a token; lines by number."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 5.5), layout="constrained", width_ratios=(4, 4, 1.6))
    names = (("forwards", "forwards a reply"), ("positions", "position-forwards a token"))
    for axis, (key, below) in zip(axes, names, strict=False):
        for number, line in enumerate(lines, start=1):
            color = _color(line)
            middle, low, high = (scale * line[name] for name in ("difference", "low", "high"))
            axis.plot([line[key]] * 2, [low, high], color=color, linewidth=0.5, alpha=0.5)
            axis.text(
                line[key], middle, str(number), color="white", fontsize=7, ha="center", va="center",
                bbox={"boxstyle": "circle,pad=0.2", "facecolor": color, "edgecolor": "white", "linewidth": 0.5},
            )  # fmt: skip
        axis.axhline(0, color="0.8", linewidth=1, zorder=0)
        axis.set(xlabel=below, xscale="log")
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        ticks = [
            tick for tick in (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 150, 200, 300) if _within(tick, lines, key)
        ]
        axis.set_xticks(ticks)
    axes[0].set_ylabel(label)
    axes[2].axis("off")
    for number, line in enumerate(lines, start=1):
        height = 1 - number / (len(lines) + 1)
        axes[2].text(0, height, f"{number}  {line['rule']}", color=_color(line), fontsize=9, va="center")
    figure.savefig(path, dpi=90)


def _color(line: Mapping[str, Any]) -> str:
    return "C1" if line["rule"].startswith(("causal", "verified")) else "C0"


def _within(tick: float, lines: Sequence[Mapping[str, Any]], key: str) -> bool:
    values = [line[key] for line in lines]
    return 0.9 * min(values) <= tick <= 1.1 * max(values)
