"""A plan as a picture: the most that each device could write, beside what others report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from redraft.bench.plan import best_form
from redraft.core.errors import InputError

_STEPS = "16"


def plot_plan(document: dict[str, Any], path: Path) -> None:
    """Draws tokens a second of every device whose speed is known, on a logarithmic scale.

    Raises:
        InputError: matplotlib is not installed, nothing is known, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install 'redraft[bench]'") from None
    rows = [(device, form) for device in document["devices"] if (form := best_form(device)) is not None]
    rows = [(device, form) for device, form in rows if form["tokens_per_second"]]
    if not rows:
        raise InputError("--plot: no device here has a known speed in canvases; leave --quick out or name a --device")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 1.4 + 0.55 * len(rows)))
    _bars(axes, sorted(rows, key=lambda row: row[1]["tokens_per_second"][_STEPS]))
    model = document["model"]["name"]
    axes.set_title(f"{model}: the most each device could write at a context of {document['context']}", loc="left")
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot: cannot write {path} ({error})") from None
    finally:
        pyplot.close(figure)


def _bars(axes: Any, rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    places = range(len(rows))
    diffusion = [form["tokens_per_second"][_STEPS] for _, form in rows]
    alone = [form["autoregressive_tokens_per_second"] for _, form in rows]
    axes.set_xscale("log")
    axes.set_axisbelow(True)
    axes.grid(axis="x", which="major", color="0.9")
    axes.barh(
        [p + 0.19 for p in places], diffusion, height=0.36, color="#2f6db3", label=f"diffusion, {_STEPS} steps a canvas"
    )
    axes.barh([p - 0.19 for p in places], alone, height=0.36, color="#b9c4d0", label="autoregressive, same weights")
    for place, rate in enumerate(diffusion):
        axes.annotate(
            _short(rate), (rate, place + 0.19), xytext=(4, 0), textcoords="offset points", va="center", size=8
        )
    labelled = False
    for place, (device, _) in enumerate(rows):
        for entry in device["published"]:
            least, most = entry["tokens_per_second"]
            label = None if labelled else "reported by others (form and steps differ)"
            axes.plot([least, most], [place + 0.19] * 2, "o-", color="#e08a1e", mec="white", ms=7, lw=2, label=label)
            labelled = True
    axes.set_yticks(list(places), [_name(device, form) for device, form in rows])
    axes.set_xlabel("tokens a second")
    # Bars on a logarithmic scale have no natural foot: a power of ten well below the shortest.
    axes.set_xlim(10.0 ** math.floor(math.log10(min(*diffusion, *alone)) - 0.3), 2.2 * max(diffusion))
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:,g}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def _name(device: dict[str, Any], form: dict[str, Any]) -> str:
    share = form["resident_expert_share"]
    return f"{device['name']}\n{form['form']}" + ("" if form["fits"] else f", {100 * share:.0f} % of experts in memory")


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
