"""A plan for people: this machine form by form, other devices with their best form, and where figures come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from redraft.bench.plan import STEPS, best_form
from redraft.kernels.choice import OPERATIONS

_GB = 1e9
_RATES = (*(f"at {steps}" for steps in STEPS), "autoregressive")
CAPTION = "tokens/s at best, at so many denoising steps a canvas, and one token at a time:"


def model_line(document: dict[str, Any]) -> str:
    """What is planned for."""
    model = document["model"]
    count = model["parameters"]
    size = f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    parts = [f"{model['name']}: {size} parameters, {100 * model['expert_parameters'] / count:.0f} % in experts"]
    if model["stored_bytes"] is not None:
        parts.append(f"stored in {_gigabytes(model['stored_bytes'])} GB")
    parts.append(f"context {document['context']}")
    if document["batch"] > 1:
        parts.append(f"{document['batch']} sequences")
    return ", ".join(parts)


def machine_lines(device: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """What one of this machine's processors has, and whether it was busy while it was measured."""
    line = f"{device['name']}: {device['memory_bytes'] / _GB:.1f} GB"
    if device["read_bytes_per_s"]:
        rates = ", ".join(
            f"{kind} {rate / 1e9:.0f}" for kind, rate in device["operations_per_s"].items() if kind != "int4"
        )
        line += f" at {device['read_bytes_per_s'] / 1e9:.0f} GB/s; peak GFLOP/s: {rates}"
    lines = [line]
    measured = document["machine"]["measured"]
    if device["is_cpu"] and measured and measured["busy"]:
        share = 100 * measured["others_share"]
        lines.append(f"busy: others took {share:.0f} % of the cores; this machine's floors are too high")
    return lines


def forms_table(device: dict[str, Any]) -> Table:
    """One row a form: memory, whether it fits, the least that a step takes, rates."""
    table = Table(box=None, pad_edge=False)
    table.add_column("form")
    headings = ("weights GB", "KV GB", "work GB", "total GB", "fits", "step at best")
    for heading in (*headings, *_RATES):
        table.add_column(heading, justify="left" if heading == "fits" else "right")
    for row in device["forms"]:
        sizes = [_gigabytes(row[f"{name}_bytes"]) for name in ("weights", "kv", "workspace", "total")]
        table.add_row(row["form"], *sizes, _fits(row), *_speeds(row))
    return table


def kernels_table(device: dict[str, Any]) -> Table:
    """One row a form: the dtype of activations, and who does each operation."""
    table = Table(box=None, pad_edge=False)
    for heading in ("form", "activations", *OPERATIONS):
        table.add_column(heading)
    for row in device["kernels"]:
        table.add_row(row["form"], row["dtype"], *(row[operation] for operation in OPERATIONS))
    return table


def catalogue_table(devices: list[dict[str, Any]]) -> Table:
    """One row a device with its best form and what others report."""
    table = Table(box=None, pad_edge=False)
    table.add_column("device")
    table.add_column("GB", justify="right")
    table.add_column("best form")
    for heading in ("total GB", "fits", "step at best", *_RATES):
        table.add_column(heading, justify="left" if heading == "fits" else "right")
    table.add_column("reported by others")
    for device in devices:
        row = best_form(device)
        memory = f"{device['memory_bytes'] / _GB:.0f}"
        reported = "; ".join(f"{_range(entry)} ({entry['what']})" for entry in device["published"]) or "-"
        if row is None:
            table.add_row(device["name"], memory, "-", "-", "no form", *["-"] * 6, reported)
            continue
        table.add_row(
            device["name"], memory, row["form"], _gigabytes(row["total_bytes"]), _fits(row), *_speeds(row), reported
        )
    return table


def source_lines(devices: list[dict[str, Any]]) -> Iterator[str]:
    """Every source once. What exactly was checked stands in the JSON document."""
    seen: dict[str, dict[str, str]] = {}
    for device in devices:
        for source in [*device["sources"], *(entry["source"] for entry in device["published"])]:
            seen.setdefault(source["name"], source)
    for source in seen.values():
        doubt = ", not checked" if "not checked" in source["status"] else ""
        yield f"{source['name']} ({source['date']}{doubt})"


def _fits(row: dict[str, Any]) -> str:
    share = row["resident_expert_share"]
    if share is None:
        return "no"
    return "yes" if row["fits"] else f"{100 * share:.0f} % of experts"


def _speeds(row: dict[str, Any]) -> list[str]:
    """Cells of the step's floor, of the rates at each number of steps, and of the autoregressive rate."""
    step, rates = row["step_floor_s"], row["tokens_per_second"]
    alone = row["autoregressive_tokens_per_second"]
    cells = ["-" if step is None else _duration(step)]
    cells += [_number(rates[str(steps)]) if rates else "-" for steps in STEPS]
    return [*cells, "-" if alone is None else _number(alone)]


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} µs"


def _range(entry: dict[str, Any]) -> str:
    least, most = entry["tokens_per_second"]
    return f"{least:,.0f}" if least == most else f"{least:,.0f}-{most:,.0f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _gigabytes(value: int) -> str:
    size = value / _GB
    return f"{size:.1f}" if size >= 1 else f"{size:.2f}" if size >= 0.01 else f"{size:.3f}"
