"""The canvas after one denoising step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Draft:
    """The canvas after one denoising step.

    Attributes:
        canvas: number of the canvas, from 0.
        step: number of the step, from 0.
        token_ids: [L] the argmax canvas, which is what would be committed now.
        accepted: [L] whether the position was accepted in this step; the others were renoised.
        entropy_nats: [L] entropy of the temperature-scaled distribution.
        temperature: the step's temperature.
    """

    canvas: int
    step: int
    token_ids: tuple[int, ...]
    accepted: tuple[bool, ...]
    entropy_nats: tuple[float, ...]
    temperature: float

    def __repr__(self) -> str:
        """In one line: a canvas is a screenful of numbers, three times over."""
        length = len(self.token_ids)
        mean_nats = sum(self.entropy_nats) / max(1, length)
        return (
            f"Draft(canvas={self.canvas}, step={self.step}, temperature={self.temperature:.2f}, "
            f"{sum(self.accepted)} of {length} accepted, mean entropy {mean_nats:.2f} nats)"
        )
