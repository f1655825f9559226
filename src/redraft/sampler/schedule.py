"""The temperature of each denoising step."""

from __future__ import annotations


def temperature(step: int, max_denoising_steps: int, t_max: float, t_min: float) -> float:
    """Linear from t_max at step 0 towards t_min, which the step after the last would reach.

    Args:
        step: from 0 up; the reference's `cur_step` is max_denoising_steps - step.
        max_denoising_steps: N, the length of the schedule, whether or not all steps are taken.

    Source: transformers `LinearTemperatureScheduleLogitsProcessor`.
    """
    remaining = max_denoising_steps - step
    return t_min + (t_max - t_min) * (remaining / max_denoising_steps)
