"""The names and types of the generation options, as keyword arguments of the engine's calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

Mode = Literal["diffusion", "autoregressive", "verified"]
SamplerName = Literal["entropy-bound", "confidence"]
ImageAttention = Literal["google", "gemma4", "generate", "causal"]
# One of the user's own has tensors in its signature, which nothing here knows of: see `redraft.sampler.samplers`.
Sampler = SamplerName | Callable[..., Any]


class GenerationChanges(TypedDict, total=False):
    """Some of the options of `GenerationOptions`, which says what each of them means.

    The engine's calls take them as keyword arguments, so that editors complete their names and type checkers find one
    that does not exist.
    """

    max_new_tokens: int
    max_denoising_steps: int
    t_max: float
    t_min: float
    sampler: Sampler
    entropy_bound: float
    threshold: float
    floor: int
    stability_threshold: int
    confidence_threshold: float
    settled_nats: float
    settled_steps: int
    handover_steps: int
    seed: int | None
    mode: Mode
    temperature: float | None
    top_p: float
    preset: str | None
    initial_canvas: Sequence[int] | str | None
    pinned: Sequence[int]
    stop: Sequence[str]
    enable_thinking: bool
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str
    parallel_tool_calls: bool
    response_format: Mapping[str, Any] | None
    probabilities: bool
    logprobs: bool
    redraft: int
    canvas_length: int | None
    adaptive_canvas: bool
    freeze_nats: float
    plateau_steps: int
    retry_empty: bool
    skip_special_tokens: bool
    image_tokens: int | None
    image_attention: ImageAttention
