"""What a denoising step costs in joules, by the device's own meter."""

from __future__ import annotations

import time
from typing import Any

from context import Context
from nvml import Nvml
from step import Step, make_step
from weights import reach, set_routers

# The meter moves about ten times a second.
_SECONDS = 4.0


def run(context: Context) -> None:
    """The first point of the int4 form, the one that is compared."""
    context.store.measure(("int4",), lambda: _measured(context), needs_s=20.0)


def _measured(context: Context) -> dict[str, Any]:
    meter = Nvml(context.clock.device)
    model = context.models.get("int4")
    set_routers(model, reach(context.config, 128))
    step = make_step(model, 1, context.config.canvas_length, context.contexts[0])
    for _ in range(5):
        step.run()
    context.clock.synchronize()
    return _per_step(context, meter, step)


def _per_step(context: Context, meter: Nvml, step: Step) -> dict[str, Any]:
    idle = meter.power_w()
    before, started, count = meter.energy_j(), time.perf_counter(), 0
    while time.perf_counter() < started + _SECONDS:
        step.run()
        count += 1
    context.clock.synchronize()
    seconds, joules = time.perf_counter() - started, meter.energy_j() - before
    length = context.config.canvas_length
    return {
        "joules_per_step": joules / count,
        "watts": joules / seconds,
        "watts_before": idle,
        "steps": count,
        # The commit is left out: it is one forward of many.
        "joules_per_token": {str(steps): joules / count * steps / length for steps in context.steps},
        "state": meter.state(),
    }
