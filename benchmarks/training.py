"""Tokens a second of a training step: redraft's against the same step written with transformers, turn about.

    python benchmarks/training.py --repetitions 10

The same model (mini's shape, random weights), batch, objective and optimizer: both losses, half of the examples
self-conditioned by a first pass without gradient, gradients clipped, AdamW. Rows have one length, so that neither side
pays for padding or masks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from redraft.bench.machine import cpu_name, others_share
from redraft.bench.subjects import SMALL_TOWER
from redraft.checkpoint.load import load_model
from redraft.checkpoint.save import save_checkpoint
from redraft.core.allocator import keep_freed_memory
from redraft.model.model import DiffusionGemma
from redraft.model.scratch import initialise, scratch_config
from redraft.train.batch import Batch
from redraft.train.draws import corrupt
from redraft.train.objective import Objective, loss_of

SHAPE = dict(
    vocab_size=4096, hidden_size=192, intermediate_size=288, num_hidden_layers=6, num_attention_heads=6,
    num_key_value_heads=3, head_dim=32, num_global_key_value_heads=2, global_head_dim=64, num_experts=8,
    top_k_experts=2, moe_intermediate_size=64, sliding_window=256, max_position_embeddings=2048,
    pad_token_id=0, eos_token_id=1, bos_token_id=2,
)  # fmt: skip
PROMPT, RESPONSE, CANVAS = 28, 20, 24
TEMPERATURE = 0.7


class Ours:
    """`loss_of` and what the training loop does around it."""

    def __init__(self, directory: Path) -> None:
        self.model = load_model(directory).requires_grad_(True)
        self.parameters = list(self.model.backbone.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def step(self, batch: Batch, seed: int) -> float:
        """One step; its loss."""
        generator = torch.Generator().manual_seed(seed)
        loss, _ = loss_of(self.model, batch, generator, Objective(soft_temperature=(TEMPERATURE, TEMPERATURE)))
        return _update(loss, self.parameters, self.optimizer)


class Theirs:
    """The same objective with `DiffusionGemmaForBlockDiffusion`."""

    def __init__(self, directory: Path) -> None:
        from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion

        config = DiffusionGemmaConfig.from_pretrained(directory, vision_config=dict(SMALL_TOWER))
        model = DiffusionGemmaForBlockDiffusion.from_pretrained(directory, config=config, dtype=torch.float32)
        self.model: Any = model.train()
        self.parameters = [p for name, p in self.model.named_parameters() if "vision" not in name]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def step(self, batch: Batch, seed: int) -> float:
        """One step; its loss."""
        generator = torch.Generator().manual_seed(seed)
        noisy, _ = corrupt(batch.canvas, SHAPE["vocab_size"], generator)
        chosen = torch.rand(len(noisy), generator=generator) < 0.5
        encoded = self.model.model.encoder(input_ids=batch.tokens)
        B, T = batch.tokens.shape
        visible = (torch.arange(T + CANVAS) < PROMPT) | (torch.arange(T + CANVAS) >= T)
        where = {
            "cache": encoded.cache,
            "decoder_attention_mask": visible.expand(B, -1),
            "decoder_position_ids": torch.arange(PROMPT, PROMPT + CANVAS)[None],
        }
        with torch.no_grad():
            first = self.model(decoder_input_ids=noisy, **where).logits / TEMPERATURE
        logits = self.model(
            decoder_input_ids=noisy, self_conditioning_logits=first, self_conditioning_mask=chosen, **where
        ).logits
        cap = self.model.final_logit_softcapping
        causal = torch.tanh(self.model.lm_head(encoded.last_hidden_state[:, PROMPT - 1 : -1]).float() / cap) * cap
        loss = F.cross_entropy(logits.flatten(0, 1), batch.canvas.flatten())
        loss = loss + F.cross_entropy(causal.flatten(0, 1), batch.tokens[:, PROMPT:].flatten())
        return _update(loss, self.parameters, self.optimizer)


def _update(loss: Tensor, parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return float(loss.detach())


def make_batch(examples: int) -> Batch:
    """Random requests of one length, the canvas being the response and its fill."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, SHAPE["vocab_size"], (examples, PROMPT + RESPONSE), generator=generator)
    canvas = F.pad(tokens[:, PROMPT:], (0, CANVAS - RESPONSE), value=1)
    causal = torch.zeros(tokens.shape)
    causal[:, PROMPT - 1 : -1] = 1
    return Batch(
        tokens=tokens,
        lengths=torch.full((examples,), PROMPT + RESPONSE),
        prefix=torch.full((examples,), PROMPT),
        canvas=canvas,
        scored=torch.ones(canvas.shape),
        causal=causal,
        values=torch.zeros(canvas.shape, dtype=torch.bool),
        causal_values=torch.zeros(tokens.shape, dtype=torch.bool),
    )


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=10)
    arguments = parser.parse_args()
    keep_freed_memory()
    batch = make_batch(arguments.examples)
    busy = others_share()
    with tempfile.TemporaryDirectory() as folder:
        model = DiffusionGemma(scratch_config(SHAPE, CANVAS))
        initialise(model, seed=0)
        save_checkpoint(model, folder)
        sides = {"redraft": Ours(Path(folder)), "transformers": Theirs(Path(folder))}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        losses: dict[str, list[float]] = {name: [] for name in sides}
        for repetition in range(arguments.repetitions + 2):
            for name, side in sides.items():
                started = time.perf_counter()
                losses[name].append(side.step(batch, seed=repetition))
                if repetition >= 2:
                    seconds[name].append(time.perf_counter() - started)
    tokens = batch.tokens.numel() + batch.canvas.numel()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "others_share": busy,
        "examples": arguments.examples,
        "first_loss": {name: values[0] for name, values in losses.items()},
        "step_s": medians,
        "least_s": {name: min(values) for name, values in seconds.items()},
        "largest_s": {name: max(values) for name, values in seconds.items()},
        "tokens_per_s": {name: tokens / value for name, value in medians.items()},
        "ratio": medians["transformers"] / medians["redraft"],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
