"""The loss curves of a run as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from redraft.core.errors import InputError
from redraft.train.metrics import read_rows
from redraft.train.recipe import read_recipe

_CURVES = ("diffusion", "causal", "values", "causal_values")
_SMOOTHING = 0.95


def plot_run(recipe_path: Path, overrides: list[str] | None = None, data: Path | None = None) -> Path:
    """Draws the metrics that a recipe's run has logged so far into `loss.png` in its output.

    Takes what `train` takes, so that the same arguments do.

    Raises:
        InputError: the run has no metrics yet, or matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise InputError("plotting needs matplotlib: pip install 'redraft[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    output = read_recipe(recipe_path, overrides or [], data).output
    metrics = output / "metrics.jsonl"
    rows = read_rows(metrics) if metrics.exists() else []
    if not rows:
        raise InputError(f"{metrics} holds nothing to draw: train first, and let it log a step")
    judged = [row for row in rows if row["kind"] == "judged"]
    figure, axes = pyplot.subplots(1, 3 if judged else 2, figsize=(16 if judged else 11, 4.2), layout="constrained")
    axes[1].sharey(axes[0])
    for axis, names, title in zip(
        axes[:2], (_CURVES[:2], _CURVES[2:]), ("all positions", "argument values only"), strict=True
    ):
        for number, name in enumerate(names):
            steps, losses = _series(rows, "train", name)
            axis.plot(steps, _smoothed(losses), color=f"C{number}", alpha=0.5, label=f"{name}, training")
            steps, losses = _series(rows, "held_out", name)
            axis.plot(steps, losses, "o-", color=f"C{number}", markersize=3, label=f"{name}, held out")
        axis.set(title=title, xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_ylabel("loss (nats per token)")
    if judged:
        _draw_quality(axes[2], rows)
    path = output / "loss.png"
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _draw_quality(axis: Any, rows: list[dict]) -> None:
    """Shares of the replies to held-out prompts."""
    names = {"quality": "right, canvas", "quality_causal": "right, causal", "at_cap": "at the cap", "empty": "empty"}
    for name, label in names.items():
        axis.plot(*_series(rows, "judged", name), "o-", markersize=3, label=label)
    axis.set(title="replies to held-out prompts", xlabel="step", ylabel="share", ylim=(-0.02, 1.02))
    axis.grid(alpha=0.3)
    axis.legend()


def _series(rows: list[dict], kind: str, name: str) -> tuple[list[int], list[float]]:
    found = [(row["step"], row.get(name)) for row in rows if row["kind"] == kind]
    known = [(step, loss) for step, loss in found if isinstance(loss, float) and math.isfinite(loss)]
    return [step for step, _ in known], [loss for _, loss in known]


def _smoothed(values: list[float]) -> list[float]:
    """Exponential moving average, corrected for its start."""
    smooth, total, weight = [], 0.0, 0.0
    for value in values:
        total = _SMOOTHING * total + (1 - _SMOOTHING) * value
        weight = _SMOOTHING * weight + (1 - _SMOOTHING)
        smooth.append(total / weight)
    return smooth
