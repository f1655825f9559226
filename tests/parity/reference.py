"""transformers' DiffusionGemma as the reference, held twice: with its eager and with its sdpa attention.

How far the two are apart on an input is the spread of float32 itself, so it sets the tolerance there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints import VISION_CONFIG, VOCAB, quiet

TOLERANCE = 1e-4
SPREADS = 5


def random_ids(*shape: int, seed: int) -> Tensor:
    """Uniform token ids."""
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def prefilled(model: Any, token_ids: Tensor, max_length: int = 128) -> Any:
    """One of our caches, with [B, T] ids encoded."""
    cache = model.new_cache(batch_size=token_ids.shape[0], max_length=max_length)
    if token_ids.shape[1]:
        model.encode(token_ids, cache)
    return cache


def load_reference(directory: Path, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """A `DiffusionGemmaForBlockDiffusion` in eval mode."""
    with quiet():
        from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

        # Where the checkpoint has no tower, one as small as they go, in the place of the default one.
        tower = json.loads((directory / "config.json").read_text())["vision_config"]
        config = DiffusionGemmaConfig.from_pretrained(directory, vision_config=tower or dict(VISION_CONFIG))
        model = DiffusionGemmaForBlockDiffusion.from_pretrained(
            directory, config=config, dtype=dtype, attn_implementation=attention
        )
        # Weights mapped from a file lie at any address, and the matrix products' last bits depend on it.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model.eval()


class Story:
    """One request in the reference: what was encoded so far, and the model that did it."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self.model = model
        self.cache = DynamicCache(config=model.config.get_text_config(decoder=True))

    @torch.no_grad()
    def encode(self, token_ids: Tensor) -> Tensor:
        """Appends [1, T] ids; logits [1, T, V] of the causal mode."""
        hidden = self.model.model.encoder(input_ids=token_ids, cache=self.cache).last_hidden_state
        cap = self.model.final_logit_softcapping
        return torch.tanh(self.model.lm_head(hidden).float() / cap) * cap

    @torch.no_grad()
    def denoise(self, canvas: Tensor, self_conditioning_logits: Tensor | None = None) -> Tensor:
        """Logits [1, L, V] of a canvas."""
        return self.model(
            decoder_input_ids=canvas,
            cache=self.cache,
            self_conditioning_logits=self_conditioning_logits,
        ).logits


class Reference:
    """Both attention implementations of one checkpoint."""

    def __init__(self, directory: Path, dtype: torch.dtype = torch.float32) -> None:
        self.sdpa = load_reference(directory, dtype, "sdpa")
        self.eager = load_reference(directory, dtype, "eager")

    def tell(self, script: Callable[[Story], Sequence[Tensor]]) -> tuple[list[Tensor], list[float]]:
        """Runs `script` on a fresh story of each; (the sdpa results, the spread of each result)."""
        left, right = script(Story(self.sdpa)), script(Story(self.eager))
        return list(left), [(a - b).abs().max().item() for a, b in zip(left, right, strict=True)]

    def check(self, ours: Sequence[Tensor], script: Callable[[Story], Sequence[Tensor]]) -> None:
        """Asserts that each of our results is as near to the reference as the reference is to itself."""
        for number, (mine, theirs, spread) in enumerate(zip(ours, *self.tell(script), strict=True)):
            assert mine.shape == theirs.shape
            gap = (mine - theirs).abs().max().item()
            allowed = max(TOLERANCE, SPREADS * spread)
            assert gap <= allowed, f"result {number}: {gap:.2e} off, {allowed:.2e} allowed"
