"""The same weights in transformers, bf16: its own generation loop, with each implementation of the experts, and
compiled over a static cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from context import Context
from store import Skipped
from weights import reach, set_routers

from redraft.bench.subjects import NEVER_CONFIDENT
from redraft.checkpoint.names import names_for
from redraft.model.model import DiffusionGemma

_IMPLEMENTATIONS = ("grouped_mm", "batched_mm", "eager")
# At the full shape the second gathers 65 GB of weights for a prompt, and the third waits for the device everywhere.
_AT_SIZE = _IMPLEMENTATIONS[:1]
# Steps of two runs, whose difference has no prompt in it.
_FEW, _MANY = 4, 12
# Beyond are those of images.
_TEXT_IDS = 250_000
# A compilation of thirty layers takes minutes.
_COMPILE_S = 60.0


def run(context: Context) -> None:
    """Launched op by op, over a cache that grows."""
    for name in _AT_SIZE if context.shape == "full" else _IMPLEMENTATIONS:
        context.store.measure((name,), lambda name=name: _measured(context, name, {}), needs_s=15.0)


def run_compiled(context: Context) -> None:
    """The fastest of the others, compiled."""
    if not context.clock.on_device:
        raise Skipped("compilation is measured on a GPU only")
    found = {
        name: point["step_ms"] for name, point in context.found("transformers").items() if "step_ms" in point
    }  # fmt: skip
    name = min(found, key=lambda key: found[key], default=_IMPLEMENTATIONS[0])
    context.store.measure(
        (f"{name}, static cache, compiled",),
        lambda: _measured(context, name, {"cache_implementation": "static"}),
        needs_s=_COMPILE_S,
    )


def _measured(context: Context, experts: str, options: dict[str, Any]) -> dict[str, Any]:
    ours = context.models.get("bf16")
    set_routers(ours, reach(context.config, 128))
    context.clock.empty_cache()
    context.clock.reset_peak()
    model = twin(ours, experts)
    few, many = (2, 4) if context.small else (_FEW, _MANY)
    ids = torch.randint(3, min(_TEXT_IDS, context.config.vocab_size), (1, context.contexts[0])).to(ours.device)

    def seconds(steps: int) -> float:
        context.clock.synchronize()
        started = time.perf_counter()
        model.generate(
            ids,
            max_new_tokens=context.config.canvas_length,
            max_denoising_steps=steps,
            confidence_threshold=NEVER_CONFIDENT,
            eos_token_id=None,
            **options,
        )
        context.clock.synchronize()
        return time.perf_counter() - started

    with _quiet():
        first = seconds(few)
        pairs = [(seconds(few), seconds(many)) for _ in range(1 if context.small else 2)]
    samples = [1e3 * (long - short) / (many - few) for short, long in pairs]
    return {
        "step_ms": median(samples),
        "samples_ms": samples,
        "first_s": first,
        "context": context.contexts[0],
        "batch": 1,
        "experts": experts,
        "options": options,
        "peak_memory_bytes": context.clock.peak_bytes(),
    }


def twin(ours: DiffusionGemma, experts: str) -> Any:
    """transformers' model around our tensors: nothing is copied, for two such models do not fit a GPU.

    Raises:
        Skipped: there is no transformers, or none that knows the model.
    """
    try:
        from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
    except ImportError as error:
        raise Skipped(f"no transformers with DiffusionGemma: {error}") from None
    config = DiffusionGemmaConfig.from_dict(ours.config.to_dict())
    config._experts_implementation = experts
    with torch.device("meta"):
        model = DiffusionGemmaForBlockDiffusion._from_config(
            config, dtype=ours.dtype, experts_implementation=experts
        )  # fmt: skip
    names = names_for(ours.config)
    state = {names.of(name): tensor for name, tensor in ours.backbone.state_dict().items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    _materialise(model, ours.device)
    return model.eval().requires_grad_(False)


def _materialise(model: Any, device: torch.device) -> None:
    """Makes rotary tables and the scales of embeddings, which are in no checkpoint. The vision tower, which no text
    meets, stays without memory."""
    for name, module in list(model.named_modules()):
        if "vision" in name or not any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            continue
        if "Rotary" in type(module).__name__:
            owner = model.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], type(module)(module.config, device=device))
            continue
        # Only embeddings have one more.
        module.embed_scale = torch.tensor(module.scalar_embed_scale, device=device)
    left = [name for name, tensor in model.named_parameters() if tensor.is_meta and "vision" not in name]
    if left:
        raise ValueError(f"transformers' model has tensors that ours has not: {left[:5]}")


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
