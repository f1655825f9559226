"""A report as a picture: where a step's time goes, and how near each part comes to the roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redraft.core.errors import InputError

_ORDER = ("head", "experts", "dense", "attention", "router", "rest")


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draws the step of every subject by part, and our own under the machine's roofline.

    Raises:
        InputError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("--plot needs matplotlib: pip install 'redraft[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (bars, roof) = pyplot.subplots(1, 2, figsize=(14, 5), width_ratios=(3, 2))
    _bars(bars, [row for row in report["subjects"] if row.get("parts_s")])
    _roofline(roof, report)
    machine = report["machine"]
    figure.suptitle(f"{report['model']}: one denoising step on {machine['threads']} threads of {machine['cpu']}")
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise InputError(f"--plot: cannot write {path} ({error})") from None
    finally:
        pyplot.close(figure)


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    names = [row["name"] for row in rows]
    left = [0.0] * len(rows)
    for part in _ORDER:
        widths = [1e3 * row["parts_s"].get(part, 0.0) for row in rows]
        axes.barh(names, widths, left=left, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("ms a step (head: logits, statistics, soft embedding; a reference's are in rest)")
    axes.legend(loc="lower right")


def _roofline(axes: Any, report: dict[str, Any]) -> None:
    machine = report["machine"]
    bandwidth = machine["read_bytes_per_s"]
    intensities = [2.0**power for power in range(-2, 15)]
    for number, (kind, peak) in enumerate(machine["peak_flops"].items()):
        color = f"C{number}"
        roof = [min(peak, intensity * bandwidth) / 1e9 for intensity in intensities]
        axes.loglog(intensities, roof, color=color, label=f"{kind} peak {peak / 1e9:.0f} GFLOP/s")
        for row in report["subjects"]:
            if row["library"] == "redraft" and row["dtype"] == kind and "roofline" in row:
                for point in row["roofline"]:
                    axes.plot(point["operations_per_byte"], point["operations_per_s"] / 1e9, "o", color=color)
                    at = (point["operations_per_byte"], point["operations_per_s"] / 1e9)
                    axes.annotate(point["name"], at, fontsize=7, xytext=(3, -8), textcoords="offset points")
    axes.set_xlabel("operations per byte read")
    axes.set_ylabel("GFLOP/s")
    axes.legend(loc="lower right", fontsize=8)
