"""Pictures of a calibration: a reliability diagram, and risk over coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from redraft.core.errors import InputError
from redraft.decide.measures import BINS, Columns, Outcome, ece, reliability


def check_plot(path: Path) -> None:
    """Makes sure that a picture can be drawn, before anything takes its time.

    Args:
        path: the picture; the end of its name says its form.

    Raises:
        InputError: matplotlib is not installed, or knows no such form.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise InputError("--plot needs matplotlib: pip install 'redraft[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib.backend_bases import FigureCanvasBase

    forms = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in forms:
        raise InputError(f"--plot: {path} must end in one of {', '.join(f'.{form}' for form in forms)}")


def plot(path: Path, series: Mapping[str, Sequence[Outcome]]) -> None:
    """Draws how often answers of a confidence are right, and how many are wrong of the most confident ones.

    Args:
        path: the picture; the end of its name says its form.
        series: outcomes by what they are called.

    Raises:
        InputError: as `check_plot`, or the file cannot be written.
    """
    check_plot(path)
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="as sure as right")
    for number, (name, found) in enumerate(series.items()):
        columns = Columns.of(found)
        bins = [each for each in reliability(columns) if each["count"]]
        confidence, accuracy = ([each[key] for each in bins] for key in ("confidence", "accuracy"))
        label = f"{name}, ECE {ece(columns):.3f}"
        left.plot(confidence, accuracy, "o-", color=f"C{number}", markersize=4, label=label)
        for x, y, each in zip(confidence, accuracy, bins, strict=True):
            left.annotate(str(each["count"]), (x, y), fontsize=7, color=f"C{number}", xytext=(3, -9),
                          textcoords="offset points")  # fmt: skip
        order = np.argsort(-columns.confidence, kind="stable")
        count = np.arange(1, len(columns) + 1)
        right.plot(count / len(columns), np.cumsum(1 - columns.right[order]) / count, color=f"C{number}", label=name)
    left.set(title=f"Reliability, {BINS} equal bins", xlabel="confidence", ylabel="share that is right")
    right.set(title="Risk over coverage", xlabel="share answered, the surest first", ylabel="share of these wrong")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--plot: cannot write {path}: {reason}") from None
    finally:
        pyplot.close(figure)
