"""What matters of the results as Markdown. Imports nothing but Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

FORMS = ("int4", "fp8", "bf16")
# Milliseconds that a step of the full shape may take there.
AIMS_MS = {"int4": 7.0, "fp8": 10.0, "bf16": 20.0}


def markdown(results: dict[str, Any], shape: str) -> str:
    """The tables."""
    steps = results[shape]
    aims = _aims(steps) if shape == "full" else ()
    sections = {
        "Aims: one canvas, the first context, all experts": aims,
        "A denoising step": _steps(steps),
        "By part, ms (floor)": _parts(steps),
        "Programmatic dependent launch": _dependent(results["pdl"]),
        "The autoregressive mode": _causal(steps),
        "Reads, int4": _reads(results["reads"]),
        "transformers, bf16, the same weights": _peers(results, shape),
        "Kernels, caches cold": _kernels(results),
        "Checks": _checks(results),
        "What is missing": _missing(results),
    }
    lines = list(_head(results))
    for title, found in sections.items():
        if rows := list(found):
            lines += ["", f"## {title}", "", *rows]
    return "\n".join(lines) + "\n"


def _head(results: dict[str, Any]) -> Iterator[str]:
    device, machine = results["device"], results["machine"]
    versions = ", ".join(f"{name} {device.get(name)}" for name in ("torch", "triton", "transformers"))
    yield f"# {device.get('name', 'unknown device')}, shape {results['shape']}, {results['date']}"
    yield f"\n{versions}. `{results['command']}`\n"
    rates = [f"copy {_get(machine, 'copy', 'bytes_per_s', scale=1e-9)} GB/s"]
    rates.append(f"read {_get(machine, 'read', 'bytes_per_s', scale=1e-9)} GB/s")
    rates += [
        f"{name} {of['tera_per_s']:.4g} T/s" for name, of in machine.get("products", {}).items() if "tera_per_s" in of
    ]
    yield "Measured: " + ", ".join(rates) + "."


def _aims(steps: dict[str, Any]) -> Iterator[str]:
    for form, aim in AIMS_MS.items():
        point = next((point for *_, point in points(steps[form])), {})
        found = f"{point['step_ms']:.3f} ms" if "step_ms" in point else _reason(point) if point else "not measured"
        parts = point.get("parts", {}).get("parts_ms", {})
        more = [f"head {parts['head']:.3f} ms (1 with the sampler)"] if "head" in parts else []
        if parts.get("experts") and "experts_bytes_floor_ms" in point:
            share = point["experts_bytes_floor_ms"] / parts["experts"]
            more.append(f"products of experts at {share:.2f} of the bandwidth (0.8)")
        yield f"- {form}: {', '.join([f'{found} of {aim:g} ms', *more])}"
    peak = steps["int4"].get("experts_128", {}).get("context_8192", {}).get("batch_1", {}).get("peak_memory_bytes")
    if peak:
        yield f"- int4 at a context of 8192: {peak / 1e9:.2f} GB of 18"


def _steps(steps: dict[str, Any]) -> Iterator[str]:
    columns = ["form", "experts", "context", "batch", "step ms", "floor ms", "of floor", "commit ms"]
    columns += ["tokens/s at 12 / 16 / 24 / 48", "touched", "peak GB", "launched"]
    found = [(form, *point) for form in FORMS for point in points(steps[form])]
    if found:
        yield f"| {' | '.join(columns)} |"
        yield "|---" * len(columns) + "|"
    for form, experts, at, batch, point in found:
        begin = f"| {form} | {experts} | {at} | {batch} "
        if "step_ms" not in point:
            yield f"{begin}| {_reason(point)} | | | | | | | |"
            continue
        rates = " / ".join(f"{rate:.0f}" for rate in point["tokens_per_s"].values())
        yield (
            f"{begin}| {point['step_ms']:.3f} | {_get(point, 'floor_ms')} | {_get(point, 'floor_share')} "
            f"| {point['commit_ms']:.2f} | {rates} | {_get(point, 'experts_touched', 'mean')} "
            f"| {point['peak_memory_bytes'] / 1e9:.2f} | {point['form']} |"
        )


def points(form: dict[str, Any], leading: str = "experts") -> Iterator[tuple[int, int, int, dict[str, Any]]]:
    """(experts, context, batch, point) of every step that was tried; or, led by widths, of every read."""
    for first, contexts in form.items():
        if not first.startswith(f"{leading}_"):
            continue
        for second, batches in contexts.items():
            for third, point in batches.items():
                yield (*(int(name.rpartition("_")[2]) for name in (first, second, third)), point)  # type: ignore[misc]


def _parts(steps: dict[str, Any]) -> Iterator[str]:
    for form in FORMS:
        point = next((point for *_, point in points(steps[form]) if "parts" in point), None)
        if point is None:
            continue
        floors = point.get("floor_parts_ms", {})
        parts = ", ".join(
            f"{name} {value:.3f}" + (f" ({floors[name]:.3f})" if name in floors else "")
            for name, value in point["parts"]["parts_ms"].items()
        )
        yield f"- {form}, by {point['parts']['by']}: {parts}; launched one by one it takes {point['eager_ms']:.2f}"
        if modules := point.get("modules"):
            yield (
                f"- {form}, by the modules, one after the other: {modules['step_ms']:.2f} ms; hidden states differ by "
                f"{modules['relative_difference']:.4f} of their norm (over what is captured of the cache "
                f"{modules['static_relative_difference']:.4f}), {modules['same_argmax']:.1%} of the tokens agree"
            )


def _dependent(found: dict[str, Any]) -> Iterator[str]:
    for experts, at, batch, point in points(found):
        if "step_ms" not in point:
            yield f"- int4, {experts} experts, {at} cached, batch {batch}: {_reason(point)}"
            continue
        yield (
            f"- int4, {experts} experts, {at} cached, batch {batch}: {point['step_ms']:.3f} ms, device "
            f"{point['device_ms']:.3f} ms, captured: {point['captured']}, same bits: {point.get('same_bits')}"
        )


def _reads(found: dict[str, Any]) -> Iterator[str]:
    for width, batch, slots, point in points(found, "width"):
        if "read_ms" in point:
            yield (
                f"- {width} positions, batch {batch}, {slots} slots: {point['read_ms']:.3f} ms, "
                f"{point['decisions_per_s']:.0f} decisions a second"
            )
    if "largest_difference_nats" in found.get("mini", {}):
        yield f"- mini against the CPU: at most {found['mini']['largest_difference_nats']:.2e} nats apart"


def _causal(steps: dict[str, Any]) -> Iterator[str]:
    for form in FORMS:
        for at, batches in steps[form].get("autoregressive", {}).items():
            for batch, point in batches.items():
                found = (
                    f"{point['token_ms']:.2f} ms a token, {point['tokens_per_s']:.0f} tokens/s"
                    if "token_ms" in point
                    else _reason(point)
                )
                yield f"- {form}, {at}, {batch}: {found}"


def _peers(results: dict[str, Any], shape: str) -> Iterator[str]:
    firsts = {form: next((p for *_, p in points(results[shape][form]) if "step_ms" in p), None) for form in FORMS}
    for name, point in results["transformers"].items():
        if not isinstance(point, dict) or "step_ms" not in point:
            yield f"- {name}: {_reason(point)}"
            continue
        ratios = ", ".join(f"{form} {point['step_ms'] / p['step_ms']:.1f} times" for form, p in firsts.items() if p)
        yield f"- {name}: {point['step_ms']:.2f} ms a step; redraft is faster by: {ratios or 'not measured'}"


def _kernels(results: dict[str, Any]) -> Iterator[str]:
    if results["kernels"]:
        yield "| kernel | ms | GB/s | of floor | launched |\n|---|---|---|---|---|"
    for name, point in results["kernels"].items():
        if not isinstance(point, dict) or "median_ms" not in point:
            yield f"| {name} | {_reason(point)} | | | |"
            continue
        yield (
            f"| {name} | {point['median_ms']:.4f} | {_get(point, 'bytes_per_s', scale=1e-9)} "
            f"| {_get(point, 'floor_share')} | {point['form']} |"
        )


def _checks(results: dict[str, Any]) -> Iterator[str]:
    for name, found in results["verify"].items():
        if not isinstance(found, dict) or "ok" not in found:
            yield f"- {name}: {_reason(found)}"
            continue
        state = "ok" if found["ok"] else "**WRONG**"
        error = f"relative error {_get(found, 'relative_error')} (at most {_get(found, 'bound')})"
        yield f"- {name}: {state}, {error} {found.get('note') or ''}".rstrip()
    for part in ("engine", "agreement", "energy"):
        for name, found in results[part].items():
            failed = isinstance(found, dict) and found.keys() & {"error", "skipped"}
            yield f"- {part}, {name}: {_reason(found) if failed else json.dumps(found)[:600]}"


def _missing(results: dict[str, Any]) -> Iterator[str]:
    steps = results[results["shape"]]
    for form in FORMS:
        if "error" in steps[form]:
            yield f"- {form} ended early: {_reason(steps[form])}"
    if results["unfinished"]:
        yield f"- Not finished: {', '.join(results['unfinished'])}; the same command goes on there."


def _reason(point: Any) -> str:
    if isinstance(point, dict) and "skipped" in point:
        return f"skipped: {point['skipped']}"
    if isinstance(point, dict) and isinstance(point.get("error"), dict):
        return f"{point['error']['type']}: {point['error']['message'][:160]}"
    return str(point)[:160]


def _get(of: Any, *keys: str, scale: float = 1.0) -> str:
    """A number by its way, to four digits; a dash where there is none."""
    for key in keys:
        of = of.get(key) if isinstance(of, dict) else None
    return f"{of * scale:.4g}" if isinstance(of, int | float) else "-"
