"""From measurements to one document: JSON for machines, a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from redraft.bench.floor import Part, floor_s, step_parts
from redraft.bench.machine import Machine
from redraft.bench.run import Measured, Plan
from redraft.bench.subjects import Spec
from redraft.model.config import ModelConfig

KINDS = ("float32", "bfloat16", "int8", "int4")


def kind_of(spec: Spec) -> str:
    """ "float32", "bfloat16", "int8" or "int4": what the products of a subject are made in."""
    return spec.quantize or spec.dtype


def is_default(spec: Spec) -> bool:
    """Whether a transformers subject runs as it comes, but for its dtype."""
    return spec.library == "transformers" and spec.experts is None and not spec.compiled


def build_report(
    found: Sequence[Measured], plan: Plan, machine: Machine, config: ModelConfig, model: str, kind: str
) -> dict[str, Any]:
    """The document that `redraft bench --json` prints.

    Args:
        found: all subjects.
        plan: what they did.
        machine: as measured at the start.
        config: of the model.
        model: its name.
        kind: whose figures stand at the top: one of `KINDS`.
    """
    ours = {kind_of(m.spec): m for m in found if m.spec.library == "redraft" and m.results}
    theirs = {m.spec.dtype: m for m in found if is_default(m.spec) and m.results}
    context = len(plan.prompt) if plan.prompt else plan.prompt_tokens
    parts = {name: step_parts(config, name, positions=config.canvas_length, context=context) for name in KINDS}
    floors = {name: floor_s(parts[name], machine, name) for name in KINDS}
    chosen = ours.get(kind)
    step = chosen.median("step_s") if chosen else None
    return {
        "model": model,
        "mode": "fixed work" if plan.steps else "real",
        "steps": plan.steps,
        "prompt_tokens": len(plan.prompt) if plan.prompt else plan.prompt_tokens,
        "max_new_tokens": plan.max_new_tokens,
        "repetitions": plan.repetitions,
        "dtype": kind,
        "step_s": step,
        "encode_s": chosen.median("encode_s") if chosen else None,
        "floor_s": floors[kind],
        "fraction_of_floor": floors[kind] / step if step else None,
        "tokens_per_second": chosen.median("tokens") / chosen.median("total_s") if chosen else None,
        "commit_s": chosen.commit_s if chosen else None,
        "autoregressive_token_s": chosen.token_s if chosen else None,
        "load_s": chosen.load_s if chosen else None,
        "peak_memory_bytes": int(chosen.median("peak_memory_bytes")) if chosen else None,
        "ratio": _ratios(ours, theirs, "step_s"),
        "request_ratio": _ratios(ours, theirs, "total_s"),
        "memory_ratio": _memory(ours, theirs),
        "subjects": [_subject(m, floors, parts) for m in found],
        "machine": machine.to_dict(),
    }


def _ratios(ours: dict[str, Measured], theirs: dict[str, Measured], name: str) -> dict[str, float | None]:
    """Reference's seconds of this name over ours: float32 against its float32, the others against its faster one of
    both dtypes."""
    seconds = {dtype: m.median(name) for dtype, m in theirs.items()}
    fastest = min(seconds.values(), default=None)
    against = {"float32": seconds.get("float32"), "bfloat16": fastest, "int8": fastest}
    ratios: dict[str, float | None] = {}
    for kind, other in against.items():
        ratios[kind] = other / ours[kind].median(name) if other and kind in ours else None
    return ratios


def _memory(ours: dict[str, Measured], theirs: dict[str, Measured]) -> dict[str, dict[str, float | None]]:
    """Our peak memory over the reference's, in the same dtype (int8: against its bfloat16)."""
    found = {}
    for kind in KINDS:
        other = theirs.get("float32" if kind == "float32" else "bfloat16")
        if kind in ours and other is not None:
            found[kind] = {
                "process": ours[kind].median("peak_memory_bytes") / other.median("peak_memory_bytes"),
                "above_model": ours[kind].median("extra_memory_bytes") / max(1, other.median("extra_memory_bytes")),
            }
    return found


def _subject(measured: Measured, floors: dict[str, float], parts: dict[str, list[Part]]) -> dict[str, Any]:
    spec = measured.spec
    row: dict[str, Any] = {"name": spec.name, "library": spec.library, "dtype": kind_of(spec)}
    if not measured.results:
        return row | {"failed": measured.failed}
    step = measured.median("step_s")
    least, largest = measured.spread("step_s")
    tokens, steps = measured.median("tokens"), measured.median("steps")
    return row | {
        "load_s": measured.load_s,
        "step_s": step,
        "step_s_least": least,
        "step_s_largest": largest,
        "encode_s": measured.median("encode_s"),
        "total_s": measured.median("total_s"),
        "steps": steps,
        "tokens": tokens,
        "tokens_per_second": tokens / measured.median("total_s"),
        "tokens_per_forward": tokens / steps,
        "fraction_of_floor": floors[kind_of(spec)] / step,
        "peak_memory_bytes": int(measured.median("peak_memory_bytes")),
        "extra_memory_bytes": int(measured.median("extra_memory_bytes")),
        "commit_s": measured.commit_s,
        "autoregressive_token_s": measured.token_s,
        "modes": measured.modes,
        "parts_s": measured.parts,
        "roofline": _roofline(measured.parts or {}, parts[kind_of(spec)]),
    }


def _roofline(seconds: dict[str, float], parts: list[Part]) -> list[dict[str, Any]]:
    """Operations a byte and a second of each part that was timed; attention is timed with its projections."""
    work = {part.name: (part.operations, part.bytes_read) for part in parts}
    more, bytes_read = work.pop("projections")
    work["attention"] = (work["attention"][0] + more, work["attention"][1] + bytes_read)
    return [
        {"name": name, "operations_per_byte": ops / read, "operations_per_s": ops / seconds[name]}
        for name, (ops, read) in work.items()
        if seconds.get(name)
    ]


def subjects_table(report: dict[str, Any]) -> Table:
    """One row a subject: the step with its spread, where its time goes, how near the floor, memory."""
    table = Table(box=None, pad_edge=False)
    table.add_column("subject")
    for heading in (
        "ms/step",
        "least-most",
        "encode",
        "commit",
        "token",
        "tokens/s",
        "of floor",
        "peak MB",
    ):
        table.add_column(heading, justify="right")
    for row in report["subjects"]:
        if "failed" in row:
            table.add_row(row["name"], *8 * ["-"])
            continue
        table.add_row(
            row["name"],
            f"{1e3 * row['step_s']:.0f}",
            f"{1e3 * row['step_s_least']:.0f}-{1e3 * row['step_s_largest']:.0f}",
            f"{1e3 * row['encode_s']:.0f}",
            _ms(row["commit_s"]),
            _ms(row["autoregressive_token_s"]),
            f"{row['tokens_per_second']:.1f}",
            f"{100 * row['fraction_of_floor']:.0f} %",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
        )
    return table


def told_lines(report: dict[str, Any]) -> list[str]:
    """Where the step of each subject goes, in milliseconds, or why there is none."""
    lines = []
    for row in report["subjects"]:
        if "failed" in row:
            lines.append(f"{row['name']} failed: {row['failed']}")
            continue
        parts = sorted((row["parts_s"] or {}).items(), key=lambda part: -part[1])
        if shown := ", ".join(f"{name} {1e3 * seconds:.0f}" for name, seconds in parts if seconds >= 1e-3):
            lines.append(f"{row['name']}, ms of a step: {shown}")
        if modes := row["modes"]:
            told = "; ".join(
                f"{mode} {found['forwards']} forwards for {found['tokens']} tokens, {found['tokens_per_second']:.0f}/s"
                for mode, found in modes.items()
            )
            lines.append(f"{row['name']}, a greedy reply: {told}")
    return lines


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.0f}"


def machine_lines(report: dict[str, Any]) -> list[str]:
    """What the figures were measured on, and a warning if it was busy."""
    machine = report["machine"]
    peaks = ", ".join(f"{kind} {rate / 1e9:.0f}" for kind, rate in machine["peak_flops"].items())
    lines = [
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores, torch {machine['torch']}",
        f"peak GFLOP/s: {peaks}; memory {machine['read_bytes_per_s'] / 1e9:.0f} GB/s",
    ]
    if machine["busy"]:
        lines.append(f"busy: others took {100 * machine['others_share']:.0f} % of the cores; figures are too high")
    return lines
