"""Trains a small model that sees, tower and all, from scratch: an icon -> one call that says what it is.

    python recipes/icons/train.py --out checkpoints/icons --minutes 30
    redraft run "what is this?" --image checkpoints/icons/example.png --model checkpoints/icons

At the end it asks the checkpoint, as anybody would, about pictures that were not drawn before.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from drawn import COLOURS, KINDS, icon
from PIL import Image
from torch import Tensor

import redraft
from redraft.checkpoint.save import save_checkpoint
from redraft.checkpoint.vision import load_vision
from redraft.core.options import GenerationOptions
from redraft.kernels.cross_entropy import weighted_cross_entropy
from redraft.model.images import Placed, image_mask, with_soft_tokens
from redraft.model.model import DiffusionGemma
from redraft.model.scratch import generation_config, initialise, scratch_config
from redraft.text.tokenizer import Tokenizer
from redraft.train.attend import DenoiseBatch, EncodeBatch
from redraft.train.draws import corrupt
from redraft.train.tokenizer import save_tokenizer, train_tokenizer
from redraft.vision.config import VisionConfig
from redraft.vision.patches import patches_of
from redraft.vision.scratch import scratch_vision
from redraft.vision.tower import Vision

QUESTION = "what is this?"
MARKERS = ("<|image>", "<image|>", "<|image|>")
IMAGE_TOKENS, WORDS, CANVAS, DRAWS = 70, 400, 16, 4
TEMPLATE = """{{ bos_token }}
{%- for message in messages -%}
<|turn>{{ 'model' if message.role == 'assistant' else message.role }}{{ '\\n' }}
{%- if message.content is string -%}{{ message.content | trim }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|image|>{%- else -%}{{ part.text | trim }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<turn|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|turn>model\\n' }}{%- endif -%}
"""
TEXT = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, num_global_key_value_heads=1, global_head_dim=32, num_experts=4, top_k_experts=2,
    moe_intermediate_size=32, sliding_window=128, max_position_embeddings=2048, pad_token_id=0, eos_token_id=1,
    bos_token_id=2,
    layer_types=["sliding_attention", "sliding_attention", "full_attention"],
)  # fmt: skip
TOWER = dict(
    hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
    head_dim=16, patch_size=6, pooling_kernel_size=2, position_embedding_size=280, standardize=False,
)  # fmt: skip


def reply(colour: str, kind: str) -> str:
    """What the model should say."""
    quote = '<|"|>'
    return f"<|tool_call>call:Seen{{colour:{quote}{colour}{quote},kind:{quote}{kind}{quote}}}<tool_call|><turn|>"


def message(picture: object) -> list[dict[str, object]]:
    """What it is asked."""
    return [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION}]}]


class Trained:
    """Text model and tower, and the one prompt that all examples share but for the picture."""

    def __init__(self, directory: Path, seed: int, start: Path | None = None) -> None:
        texts = [f"<|turn>user\n{QUESTION}<turn|>\n<|turn>model\n{reply(c, k)}" for c in COLOURS for k in KINDS]
        backend = train_tokenizer(texts * 4, WORDS)
        backend.add_special_tokens(list(MARKERS))
        save_tokenizer(backend, directory, TEMPLATE)
        self.tokenizer = Tokenizer(backend)
        begin, end, self.place = (int(self.tokenizer.id_of(marker) or 0) for marker in MARKERS)
        names = {"boi_token_id": begin, "eoi_token_id": end, "image_token_id": self.place}
        shape = TEXT | {"vocab_size": self.tokenizer.num_ids}
        config = scratch_config(shape, CANVAS, vision=TOWER, image_tokens=names)
        self.model = DiffusionGemma(config)
        initialise(self.model, seed)
        self.vision: Vision = scratch_vision(VisionConfig.from_dict(config.raw, config.hidden_size), seed + 1)
        if start is not None:
            self.model.load_state_dict(redraft.load_model(start).state_dict())
            self.vision.load_state_dict(load_vision(start).state_dict())
        (directory / "generation_config.json").write_text(json.dumps(generation_config(0, 2, [1, self.id("<turn|>")])))
        processor = {"image_processor": {"max_soft_tokens": IMAGE_TOKENS}}
        (directory / "processor_config.json").write_text(json.dumps(processor))
        self.directory = directory
        before = self.tokenizer.encode("<bos><|turn>user\n")
        after = self.tokenizer.encode(f"{QUESTION}<turn|>\n<|turn>model\n")
        # A square becomes 8 x 8 of 70.
        self.start, self.count = len(before) + 1, 64
        self.prompt = [*before, begin, *[self.place] * self.count, end, *after]

    def id(self, token: str) -> int:
        return int(self.tokenizer.id_of(token) or 0)

    def save(self) -> None:
        save_checkpoint(self.model, self.directory, source=None, vision=self.vision)

    def loss(self, examples: list[tuple[str, str, object]], generator: torch.Generator) -> Tensor:
        """Both modes' mean cross entropy, of canvases that all see a clean prompt."""
        model, config = self.model, self.model.config
        soft = [self.vision(patches_of(pixels, self.vision.config, IMAGE_TOKENS)) for *_, pixels in examples]  # type: ignore[arg-type]
        replies = [self.tokenizer.encode(reply(colour, kind)) for colour, kind, _ in examples]
        canvas = torch.tensor([(ids + [1] * CANVAS)[:CANVAS] for ids in replies])
        tokens = torch.cat([torch.tensor(self.prompt).expand(len(examples), -1), canvas], dim=1)
        T, prefix = tokens.shape[1], len(self.prompt)
        encode = EncodeBatch(config, T, model.device)
        run = [(self.start, self.start + self.count)]
        encode.masks = [image_mask(T, T, layer.window, run, "google")[None] for layer in config.layers]
        embedded = with_soft_tokens(
            model.backbone.embed(tokens), [[Placed(start=self.start, soft=one)] for one in soft]
        )
        encoded = model.backbone(embedded, torch.arange(T).expand_as(tokens), encode, causal=True)
        causal = self._cross_entropy(encoded[:, prefix - 1 : -1], canvas)

        clean = canvas.repeat_interleave(DRAWS, 0)
        noisy, _ = corrupt(clean, config.vocab_size, generator, DRAWS)
        stored = [(k.repeat_interleave(DRAWS, 0), v.repeat_interleave(DRAWS, 0)) for k, v in encode.stored]
        lengths = torch.full((len(clean),), prefix)
        signal = self._signal(noisy, stored, lengths, generator)
        return causal + self._cross_entropy(self._denoised(noisy, signal, stored, lengths), clean)

    @torch.no_grad()
    def _signal(self, noisy: Tensor, stored: list, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """What a first look believes, for every other canvas; the others get none."""
        uniform = torch.rand(noisy.shape, generator=generator)
        stats = self.model.head(self._denoised(noisy, None, stored, lengths), torch.ones(len(noisy)), uniform)
        assert stats.soft_embedding is not None
        chosen = torch.rand(len(noisy), generator=generator) < 0.5
        return stats.soft_embedding * chosen[:, None, None]

    def _denoised(self, canvas: Tensor, signal: Tensor | None, stored: list, lengths: Tensor) -> Tensor:
        backbone = self.model.backbone
        embedded = backbone.self_conditioning.condition(backbone.embed(canvas), signal)
        attend = DenoiseBatch(self.model.config, stored, lengths, CANVAS)
        return backbone(embedded, lengths[:, None] + torch.arange(CANVAS), attend, causal=False)

    def _cross_entropy(self, hidden: Tensor, targets: Tensor) -> Tensor:
        weight = torch.full((targets.numel(),), 1 / targets.numel())
        cap = self.model.config.final_logit_softcapping
        embedding = self.model.embedding
        return weighted_cross_entropy(hidden.flatten(0, 1), embedding, targets.flatten(), weight, cap)[0]


def examples(seed: int) -> Iterator[tuple[str, str, object]]:
    """Pictures without end, the same for the same seed."""
    generator = random.Random(seed)
    while True:
        colour, kind = generator.choice(list(COLOURS)), generator.choice(KINDS)
        yield colour, kind, icon(kind, colour, generator)


def exact_match(directory: Path, count: int, seed: int) -> float:
    """Share of the calls that are right, asked through the engine."""
    engine = redraft.load(directory, dtype="float32")
    drawn, right = examples(seed), 0
    options = GenerationOptions(seed=0, max_new_tokens=CANVAS)
    for _ in range(count):
        colour, kind, pixels = next(drawn)
        calls = engine.generate(message(pixels), options).tool_calls
        right += [call.arguments for call in calls] == [{"colour": colour, "kind": kind}]
    return right / count


def main() -> None:
    """Prints a line every hundred steps, and the share of held-out pictures that are told right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--start", type=Path, help="a model of an earlier run, to go on from; give another --seed")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    trained = Trained(arguments.out, arguments.seed, arguments.start)
    parameters = [*trained.model.parameters(), *trained.vision.parameters()]
    print(f"{sum(p.numel() for p in parameters):,} parameters", flush=True)
    optimizer = torch.optim.AdamW(parameters, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator, drawn = torch.Generator().manual_seed(arguments.seed), examples(arguments.seed)
    started, step, seen = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - started) / (60 * arguments.minutes)) < 1:
        # Up over the first hundred steps, down to nothing with the time that is left.
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min(1.0, (step + 1) / 100) * min(1.0, 2 * (1 - share))
        loss = trained.loss([next(drawn) for _ in range(arguments.batch)], generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step, seen = step + 1, 0.98 * seen + 0.02 * float(loss.detach())
        if step % 100 == 0:
            minutes = (time.monotonic() - started) / 60
            print(f"step {step}, {minutes:.1f} min: loss {seen / (1 - 0.98 ** min(step, 500)):.3f}", flush=True)
    trained.save()
    colour, kind, pixels = next(examples(arguments.seed + 1))
    Image.fromarray(pixels).save(arguments.out / "example.png")  # type: ignore[arg-type]
    share = exact_match(arguments.out, arguments.held_out, arguments.seed + 1)
    print(f"{step} steps of {arguments.batch}; example.png is a {colour} {kind}")
    print(f"exact match on {arguments.held_out} held-out pictures: {share:.3f}")


if __name__ == "__main__":
    main()
