"""What is measured: redraft, and Hugging Face transformers as it comes. Each runs in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from redraft.bench.memory import peak_bytes, reset_peak
from redraft.bench.parts import PartTimer
from redraft.core.files import read_json

# Below any mean entropy: a run of fixed work never stops early. The reference refuses 0.
NEVER_CONFIDENT = 1e-30
# Of the causal mode.
_TOKENS = 8
# As small as transformers' vision tower goes. Without one in the config it would build its default of 168 million
# parameters, which nothing runs through, and its memory would be counted.
SMALL_TOWER = {
    "model_type": "gemma4_vision",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "patch_size": 4,
    "position_embedding_size": 4,
    "pooling_kernel_size": 3,
}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One thing to measure.

    Attributes:
        name: as reports call it.
        library: "redraft" or "transformers".
        directory: of the checkpoint.
        dtype: "float32" or "bfloat16".
        quantize: of redraft: None, "int8" or "int4"; "int4" finds what is stored as such.
        experts: of transformers: which implementation of the experts; None is its default.
        compiled: of transformers: a static cache, which makes it compile its step.
        memory_gb: of redraft: see `redraft.load`; None lets it take what there is.
        adapter: of redraft: a directory with the one that it runs with.
        threads: CPU threads.
    """

    name: str
    library: str
    directory: str
    dtype: str
    quantize: str | None = None
    experts: str | None = None
    compiled: bool = False
    memory_gb: float | None = None
    adapter: str | None = None
    threads: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """One generation.

    Attributes:
        prompt: token ids.
        max_new_tokens: a multiple of the canvas makes fixed work.
        steps: denoising steps of every canvas; None lets the model stop when it is sure.
        seed: of the generation.
        parts: whether to time the model's parts, which costs a little.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    steps: int | None
    seed: int
    parts: bool = False


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a generation cost.

    Attributes:
        total_s, encode_s, step_s: the whole, all causal forwards, and one denoising step with all that belongs to it.
        steps, tokens: denoising steps taken, and tokens that the user got.
        peak_memory_bytes: of the process while it generated, weights included.
        extra_memory_bytes: how far that is above what the process held before.
        parts: seconds a step by part of the model, if asked for.
        commit_s, token_s: with them, of redraft: encoding a canvas, and a token of the causal mode.
        modes: with them, of redraft where a model stops by itself: a greedy reply's forwards and tokens a second, by
            mode.
    """

    total_s: float
    encode_s: float
    step_s: float
    steps: int
    tokens: int
    peak_memory_bytes: int
    extra_memory_bytes: int
    parts: dict[str, float] | None = None
    commit_s: float | None = None
    token_s: float | None = None
    modes: dict[str, dict[str, float]] | None = None


class Subject(Protocol):
    """Holds a loaded model and runs one generation at a time."""

    def run(self, work: Work) -> Result: ...


class Redraft:
    """redraft's own engine."""

    def __init__(self, spec: Spec) -> None:
        from redraft.engine.engine import LocalEngine
        from redraft.engine.load import load

        how: dict[str, Any] = {"dtype": spec.dtype, "quantize": spec.quantize, "adapter": spec.adapter}
        engine = load(spec.directory, device="cpu", threads=spec.threads, memory_gb=spec.memory_gb, **how)
        assert isinstance(engine, LocalEngine)
        self.engine = engine

    def run(self, work: Work) -> Result:
        options: dict[str, Any] = {"max_new_tokens": work.max_new_tokens, "seed": work.seed}
        if work.steps is not None:
            options |= {"max_denoising_steps": work.steps, "confidence_threshold": NEVER_CONFIDENT}
        model = self.engine.model
        before = reset_peak()
        with PartTimer(model.backbone, enabled=work.parts) as timer:
            if work.parts:
                timer.watch(model, "denoise_hidden", starts=True)
                timer.watch(model, "head", name="head")
            generation = self.engine.generate(list(work.prompt), **options)
        stats = generation.stats
        return Result(
            total_s=stats.total_s,
            encode_s=stats.encode_s,
            step_s=stats.denoise_s / stats.denoising_steps,
            steps=stats.denoising_steps,
            tokens=stats.generated_tokens,
            peak_memory_bytes=peak_bytes(),
            extra_memory_bytes=max(0, peak_bytes() - before),
            parts=timer.seconds_per_step(stats.denoising_steps, stats.denoise_s) if work.parts else None,
            commit_s=self._commit_s(work) if work.parts else None,
            token_s=self._token_s(work) if work.parts else None,
            modes=self._modes(work) if work.parts and work.steps is None else None,
        )

    def _modes(self, work: Work) -> dict[str, dict[str, float]]:
        """A reply in each mode. The encode of its prompt is no forward that writes, though it takes time."""
        found = {}
        for mode in ("diffusion", "autoregressive", "verified"):
            stats = self.engine.generate(
                list(work.prompt), mode=mode, temperature=0.0, seed=work.seed, max_new_tokens=work.max_new_tokens
            ).stats
            forwards = stats.denoising_steps + max(0, stats.encode_passes - 1)
            found[mode] = {
                "forwards": forwards,
                "tokens": stats.generated_tokens,
                "tokens_per_second": stats.tokens_per_second,
            }
        return found

    def _commit_s(self, work: Work) -> float:
        model = self.engine.model
        cache = model.new_cache()
        model.encode(torch.tensor([work.prompt]), cache)
        canvas = torch.randint(model.config.vocab_size, (1, model.config.canvas_length))
        started = time.perf_counter()
        model.encode(canvas, cache)
        return time.perf_counter() - started

    def _token_s(self, work: Work) -> float:
        """A token behind the prompt, whose own cost is not counted; no reply can end it early."""
        model = self.engine.model
        cache = model.new_cache()
        model.encode(torch.tensor([work.prompt]), cache)
        token, started = torch.tensor([work.prompt[-1:]]), 0.0
        # The first one warms up.
        for number in range(1 + _TOKENS):
            if number == 1:
                started = time.perf_counter()
            logits = model.logits(model.encode(token, cache))[0]
            token = torch.softmax(logits, dim=-1).argmax(-1, keepdim=True)
        return (time.perf_counter() - started) / _TOKENS


class Transformers:
    """`DiffusionGemmaForBlockDiffusion.generate`, with one of its own settings."""

    def __init__(self, spec: Spec) -> None:
        from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
        from transformers.utils import logging

        logging.set_verbosity_error()
        torch.set_num_threads(spec.threads)
        chosen: dict[str, Any] = {} if spec.experts is None else {"experts_implementation": spec.experts}
        tower = read_json(Path(spec.directory) / "config.json").get("vision_config")
        config = DiffusionGemmaConfig.from_pretrained(spec.directory, vision_config=tower or dict(SMALL_TOWER))
        self.model: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(
            spec.directory, config=config, dtype=getattr(torch, spec.dtype), **chosen
        ).eval()
        self.compiled = spec.compiled
        self.encode_s = 0.0
        self.model.model.encoder.register_forward_pre_hook(self._encode_begins)
        self.model.model.encoder.register_forward_hook(self._encode_ended)

    def _encode_begins(self, *_: Any) -> None:
        self.encode_s -= time.perf_counter()

    def _encode_ended(self, *_: Any) -> None:
        self.encode_s += time.perf_counter()

    def run(self, work: Work) -> Result:
        options: dict[str, Any] = {"max_new_tokens": work.max_new_tokens}
        if work.steps is not None:
            options |= {"max_denoising_steps": work.steps, "confidence_threshold": NEVER_CONFIDENT}
        if self.compiled:
            options["cache_implementation"] = "static"
        torch.manual_seed(work.seed)
        steps = _Counter(self.model.forward)
        before = reset_peak()
        self.encode_s = 0.0
        with PartTimer(self.model.model.decoder, enabled=work.parts) as timer:
            # A compiled step must stay as it is; it takes all the steps it is given.
            if not self.compiled:
                self.model.forward = steps
            try:
                started = time.perf_counter()
                output = self.model.generate(torch.tensor([work.prompt]), **options)
                total = time.perf_counter() - started
            finally:
                if not self.compiled:
                    del self.model.forward
        ids = output.sequences[0, len(work.prompt) :].tolist()
        count = steps.calls or (work.steps or 1) * -(-work.max_new_tokens // self.model.config.canvas_length)
        denoise = total - self.encode_s
        return Result(
            total_s=total,
            encode_s=self.encode_s,
            step_s=denoise / count,
            steps=count,
            tokens=len(self._visible(ids)),
            peak_memory_bytes=peak_bytes(),
            extra_memory_bytes=max(0, peak_bytes() - before),
            parts=timer.seconds_per_step(count, denoise) if work.parts else None,
        )

    def _visible(self, ids: Sequence[int]) -> Sequence[int]:
        """What a user would get: nothing from the first end-of-turn on."""
        ends = self.model.generation_config.eos_token_id
        stop = {ends} if isinstance(ends, int) else set(ends or ())
        return ids[: next((place for place, token in enumerate(ids) if token in stop), len(ids))]


class _Counter:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.call, self.calls = call, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return self.call(*arguments, **options)


LIBRARIES: dict[str, Callable[[Spec], Subject]] = {"redraft": Redraft, "transformers": Transformers}
