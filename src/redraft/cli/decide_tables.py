"""Measures of decisions as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from redraft.cli.show import count, print_rich, print_table, printable

_DASH = "-"


def print_measures(result: Mapping[str, Any]) -> None:
    """What an evaluation found, two columns; kinds beside each other where there are several."""
    spent, flips = result["costs"], result.get("flips") or {}
    columns = {"all": result, **result.get("by_kind", {})}
    print_rich(_table("", columns))
    cells = {
        "probabilities": "calibrated" if result["calibrated"] else "as read",
        "p50, p95 of a decision": f"{1000 * spent['p50_s']:.1f} ms, {1000 * spent['p95_s']:.1f} ms",
        "decisions_per_second": f"{spent['decisions_per_second']:.1f}",
        "reads": f"{spent['canvas_reads']} canvas, {spent['causal_reads']} causal",
        "looked at again": str(spent["reread"]),
        "left unanswered": f"{spent['abstained']}, cannot be asked {spent['cannot_be_asked']}",
    }
    cells |= {f"flips, {name}": _flips(found) for name, found in flips.items()}
    print_table(cells)


def print_ways(result: Mapping[str, Any]) -> None:
    """Ways beside each other, and each two of them."""
    print_rich(_table("", result["ways"]))
    table = _empty("", "accuracy, points", "better, worse states", "Brier")
    for pair in result["pairs"]:
        brier = pair.get("brier")
        table.add_row(
            f"{pair['one']} - {pair['other']}",
            _between(pair["accuracy"], 100, 1),
            f"{pair['better']}, {pair['worse']}",
            _DASH if brier is None else _between(brier, 1, 4),
        )
    print_rich(table)


def print_calibration(measured: Mapping[str, Any], questions: Sequence[Mapping[str, Any]]) -> None:
    """Before and after, and what was fitted."""
    print_rich(_table("", {"as read": measured["before"], "calibrated": measured["after"]}))
    has_thresholds = any("threshold" in line for line in questions)
    headings = ("temperature", "answers") + (("threshold", "answered", "accuracy of these") if has_thresholds else ())
    table = _empty("question", *headings)
    for line in questions:
        cells = [printable(str(line["question"])), f"{line['temperature']:.3f}", str(line["answers"])]
        if "threshold" in line:
            reached = line["threshold"]
            cells += [
                "none is enough" if reached is None else f"{reached:.3f}",
                _share(line["coverage"]),
                _share(line["accuracy"]),
            ]
        table.add_row(*cells)
    print_rich(table)


def _table(corner: str, columns: Mapping[str, Mapping[str, Any]]) -> Table:
    """Measures in rows, what was measured in columns."""
    table = _empty(corner, *columns)
    found = [_rows(measures) for measures in columns.values()]
    for name in dict.fromkeys(name for rows in found for name in rows):
        table.add_row(name, *(rows.get(name, _DASH) for rows in found))
    return table


def _rows(measures: Mapping[str, Any]) -> dict[str, str]:
    rows = {"answers": f"{measures['count']} of {count(measures['states'], 'state', 'states')}"}
    rows["accuracy"] = _with_interval(measures, "accuracy", 100, 1, " %")
    if "brier" in measures:
        rows["Brier"] = _with_interval(measures, "brier", 1, 4)
        rows["NLL, nats"] = _number(measures["nll"])
        name = f"ECE, {measures['bins']} equal bins (floor)"
        rows[name] = f"{measures['ece']:.4f} ({measures['ece_floor']:.4f})"
        for gate in measures["gates"]:
            rows[f"from {gate['gate']:g} on"] = f"{_share(gate['coverage'])}, {gate['wrong']} wrong"
        for each in measures["coverage_at"]:
            rows[f"answered at {100 * each['error']:g} % wrong"] = _share(each["coverage"])
        rows["AURC"] = _number(measures["aurc"])
    if "calibration" in measures:
        parts = measures["calibration"]
        ece, nll = ([parts[part][name] for part in ("before", "after")] for name in ("ece", "nll"))
        rows["ECE of half, before, after calibration on the other"] = f"{ece[0]:.4f}, {ece[1]:.4f}"
        rows["NLL of these"] = ", ".join(map(_number, nll))
    if measures["refused"]:
        rows["without an answer"] = str(measures["refused"])
    if "costs" in measures:
        spent = measures["costs"]
        rows["p50, p95"] = f"{1000 * spent['p50_s']:.1f} ms, {1000 * spent['p95_s']:.1f} ms"
        rows["decisions a second"] = f"{spent['decisions_per_second']:.1f}"
    return rows


def _empty(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(printable(heading), justify="right" if place else "left", no_wrap=True)
    return table


def _with_interval(measures: Mapping[str, Any], name: str, scale: float, digits: int, unit: str = "") -> str:
    value = measures[name]
    if value is None:
        return _DASH
    shown = f"{scale * value:.{digits}f}{unit}"
    low, high = measures.get(f"{name}_interval", (None, None))
    return shown if low is None else f"{shown} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def _between(found: Mapping[str, float], scale: float, digits: int) -> str:
    value, low, high = (scale * found[name] for name in ("difference", "low", "high"))
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _flips(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "nothing to turn"
    return f"{found['flips']} of {found['count']}, p moves by up to {found['max_dp']:.3f}, {found['mean_dp']:.4f} mean"


def _share(value: float | None) -> str:
    return _DASH if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.4f}"
