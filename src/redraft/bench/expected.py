"""What the released model is to be expected to do on a device, where somebody has seen it: a floor is not that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redraft.bench.catalogue import Device

# What a step of the released shape (random weights, int4) took on two CPUs, over what their own rates allow at best.
# Source: docs/log.md, `redraft bench --shape full --steps 2`.
OVER_FLOOR = (1.23, 1.41)


def expected(device: Device, forms: Sequence[dict[str, Any]]) -> list[float] | None:
    """Least and most tokens a second of one request, as others report them, or on a CPU as ours were at 16 steps a
    canvas in int4; None where nobody has seen it, or where the model would not fit as it did there.

    Args:
        device: which one.
        forms: the plan's rows for it.
    """
    if not any(row["fits"] for row in forms):
        return None
    if device.published:
        rates = [rate for entry in device.published for rate in entry.tokens_per_second]
        return [min(rates), max(rates)]
    [row] = (row for row in forms if row["form"] == "int4")
    if not (device.is_cpu and row["fits"] and row["tokens_per_second"]):
        return None
    return sorted(row["tokens_per_second"]["16"] / ratio for ratio in OVER_FLOOR)
