"""One request in flight: what it has, where its canvas stands, what it has cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from redraft.core.options import GenerationOptions
from redraft.core.results import GenerationStats
from redraft.engine.reply import Reply
from redraft.model.cache import SequenceCache


@dataclass
class CanvasState:
    """The canvas being denoised.

    Attributes:
        tokens: [L] the noisy canvas.
        argmax: [L] what would be committed now; None before the first step.
        soft: [L, D] what the next step is conditioned on; None at the first, a true zero signal.
        history: [H, 1, L] the argmax canvases of the last H steps.
        step: steps done.
        uniform: [S, L] draws for the samples of this block of steps.
        noise: [S, L] token ids for what this block of steps renoises.
    """

    tokens: Tensor
    history: Tensor
    uniform: Tensor
    noise: Tensor
    argmax: Tensor | None = None
    soft: Tensor | None = None
    step: int = 0


@dataclass
class Costs:
    """Counters and clocks of one request."""

    cached_tokens: int = 0
    canvases: int = 0
    denoising_steps: int = 0
    encode_passes: int = 0
    encode_s: float = 0.0
    denoise_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    first_canvas_s: float | None = None

    def finish(self, prompt_tokens: int, generated_tokens: int) -> GenerationStats:
        """The final figures."""
        total = time.perf_counter() - self.started
        return GenerationStats(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.cached_tokens,
            generated_tokens=generated_tokens,
            canvases=self.canvases,
            denoising_steps=self.denoising_steps,
            encode_passes=self.encode_passes,
            # The causal mode has no denoising steps; each of its tokens took one encode.
            tokens_per_forward=generated_tokens / max(1, self.denoising_steps or self.encode_passes),
            time_to_first_canvas_s=total if self.first_canvas_s is None else self.first_canvas_s,
            encode_s=self.encode_s,
            denoise_s=self.denoise_s,
            total_s=total,
            tokens_per_second=generated_tokens / total,
        )


@dataclass
class Sequence:
    """A request from admission to its last canvas.

    Attributes:
        prompt: token ids.
        options: with every default filled in.
        seed: as an int64 bit pattern.
        cache: what has been encoded.
        pending: ids to encode before the next denoising step.
        reply: what the user gets.
        max_canvases: as many as the budget and the context allow.
        max_context: tokens of prompt and reply together.
        canvas: None between canvases.
        failed: why it ended early.
    """

    prompt: list[int]
    options: GenerationOptions
    seed: int
    cache: SequenceCache
    pending: list[int]
    reply: Reply
    max_canvases: int
    max_context: int
    canvas: CanvasState | None = None
    costs: Costs = field(default_factory=Costs)
    failed: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the reply has ended."""
        return self.reply.finish is not None
