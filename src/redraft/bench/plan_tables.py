"""A plan for people: this machine form by form, other devices with their best form, and where figures come from."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from redraft.bench.expected import OVER_FLOOR
from redraft.bench.plan import STEPS, best_form
from redraft.kernels.choice import OPERATIONS

_GB = 1e9
_WIDTH = 80
CAPTION = """GB: weights, keys and values, and what a forward needs; of another device, what
it has, of 10^9 bytes (a card sold with 24 has 26). A share of the experts is
what stays in memory. step: the least that one can take. @16: tokens/s at best
with 16 denoising steps a canvas; causal: token by token; drafts: verified,
where eight tokens of a draft of one step are kept, 0.22 forwards a token; from:
how many must be kept for that to be faster than token by token. seen: what
somebody has measured; without it a bound is only a bound."""
# Of the rates, those that a table of many devices has room for.
_FEW = (16, 48)
_KEPT = "8"


def model_line(document: dict[str, Any]) -> str:
    """What is planned for."""
    model = document["model"]
    count = model["parameters"]
    size = f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    parts = [f"{model['name']}: {size} parameters, {100 * model['expert_parameters'] / count:.0f} % in experts"]
    if model["stored_bytes"] is not None:
        parts.append(f"stored in {_gigabytes(model['stored_bytes'])} GB")
    if model["vision_parameters"]:
        parts.append(f"a tower for pictures of {model['vision_parameters'] / 1e6:.1f} million beside them")
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
    if device["is_cpu"] and device["expected_tokens_per_second"]:
        low, high = OVER_FLOOR
        rates = _range(device["expected_tokens_per_second"])
        lines.append(f"int4 @16 is to be expected at {rates}: two CPUs took {low} and {high} times the least")
    return lines


def forms_table(device: dict[str, Any]) -> Table:
    """One row a form: memory, whether it fits, the least that a step takes, rates."""
    table = Table(box=None, pad_edge=False)
    table.add_column("form")
    for heading in ("weights", "GB", "fits", "step", *(f"@{steps}" for steps in STEPS), "causal", "drafts", "from"):
        table.add_column(heading, justify="left" if heading == "fits" else "right", no_wrap=True)
    for row in device["forms"]:
        sizes = [_gigabytes(row[f"{name}_bytes"]) for name in ("weights", "total")]
        verified = (row["verified_tokens_per_second"] or {}).get(_KEPT)
        last = "-" if verified is None else _number(verified)
        table.add_row(row["form"], *sizes, _fits(row), *_speeds(row, STEPS), last, _kept(row))
    return table


def _kept(row: dict[str, Any]) -> str:
    """Tokens of a draft that must be kept."""
    least = row["verified_pays_from_kept"]
    return "-" if least is None else f"{least:.1f}"


def kernels_table(device: dict[str, Any]) -> Table:
    """One row a form: the dtype of activations, and who does each operation."""
    table = Table(box=None, pad_edge=False)
    for heading in ("form", "activations", *OPERATIONS):
        table.add_column(heading)
    for row in device["kernels"]:
        table.add_row(row["form"], row["dtype"], *(row[operation] for operation in OPERATIONS))
    return table


def catalogue_table(devices: list[dict[str, Any]]) -> Table:
    """One row a device with its best form, what it can do at best, and what others report."""
    # One space between columns, so that the widest row has 80.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("device", no_wrap=True)
    for heading in ("GB", "form", "step", *(f"@{steps}" for steps in _FEW), "causal", "from", "seen"):
        table.add_column(heading, justify="left" if heading == "form" else "right", no_wrap=True)
    for device in devices:
        row = best_form(device)
        memory = f"{device['memory_bytes'] / _GB:.0f}"
        seen = _range(device["expected_tokens_per_second"])
        if row is None:
            table.add_row(device["name"], memory, "no form fits", *["-"] * 5, seen)
            continue
        form = row["form"] if row["fits"] else f"{row['form']}, {_fits(row)}"
        table.add_row(device["name"], memory, form, *_speeds(row, _FEW), _kept(row), seen)
    return table


def reported_lines(devices: list[dict[str, Any]]) -> Iterator[str]:
    """What stands behind the figures that were seen."""
    for device in devices:
        for entry in device["published"]:
            beside = entry["autoregressive_tokens_per_second"]
            more = "" if beside is None else f", beside {_number(beside)} token by token"
            yield f"  {device['name']}: {_range(entry['tokens_per_second'])} ({entry['what']}{more})"


def source_lines(devices: list[dict[str, Any]]) -> Iterator[str]:
    """Every source once. What exactly was checked stands in the JSON document."""
    seen: dict[str, dict[str, str]] = {}
    for device in devices:
        for source in [*device["sources"], *(entry["source"] for entry in device["published"])]:
            seen.setdefault(source["name"], source)
    for source in seen.values():
        doubt = ", not checked" if "not checked" in source["status"] else ""
        told = f"{source['name']} ({source['date']}{doubt})"
        yield textwrap.fill(told, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _fits(row: dict[str, Any]) -> str:
    share = row["resident_expert_share"]
    if share is None:
        return "no"
    return "yes" if row["fits"] else f"{100 * share:.0f} %"


def _speeds(row: dict[str, Any], steps: Sequence[int]) -> list[str]:
    """Cells of the step's floor, of the rates at these numbers of steps, and of the causal mode's rate."""
    step, rates = row["step_floor_s"], row["tokens_per_second"]
    alone = row["autoregressive_tokens_per_second"]
    cells = ["-" if step is None else _duration(step)]
    cells += [_number(rates[str(number)]) if rates else "-" for number in steps]
    return [*cells, "-" if alone is None else _number(alone)]


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} µs"


def _range(rates: Sequence[float] | None) -> str:
    if rates is None:
        return "-"
    least, most = map(_number, rates)
    return least if least == most else f"{least}-{most}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _gigabytes(value: int) -> str:
    size = value / _GB
    return f"{size:.1f}" if size >= 1 else f"{size:.2f}" if size >= 0.01 else f"{size:.3f}"
