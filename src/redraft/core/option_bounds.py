"""What the generation options may be, and which of them belong to canvases alone."""

from __future__ import annotations

LEAST: dict[str, tuple[float, type[int] | type[float]]] = {
    "max_new_tokens": (1, int),
    "max_denoising_steps": (1, int),
    "t_max": (0.0, float),
    "t_min": (0.0, float),
    "entropy_bound": (0.0, float),
    "threshold": (0.0, float),
    "floor": (0, int),
    "stability_threshold": (0, int),
    "confidence_threshold": (0.0, float),
    "settled_nats": (0.0, float),
    "settled_steps": (0, int),
    "handover_steps": (0, int),
    "temperature": (0.0, float),
    "top_p": (0.0, float),
    "redraft": (0, int),
    "canvas_length": (1, int),
    "freeze_nats": (0.0, float),
    "plateau_steps": (0, int),
}
# A longer schedule stays warm for so long that no canvas settles, and a reply would never come.
MOST = {"max_denoising_steps": 4096, "redraft": 64, "threshold": 1}
# How many soft tokens a picture may become.
IMAGE_TOKENS = (70, 140, 280, 560, 1120)
# What the causal mode has no use for.
OF_CANVASES = (
    "max_denoising_steps",
    "t_max",
    "t_min",
    "sampler",
    "entropy_bound",
    "threshold",
    "floor",
    "stability_threshold",
    "confidence_threshold",
    "settled_nats",
    "settled_steps",
    "handover_steps",
    "canvas_length",
    "adaptive_canvas",
    "freeze_nats",
    "plateau_steps",
    "retry_empty",
)
