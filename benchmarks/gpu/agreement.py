"""Does the device compute what a CPU does? Noise, mini's greedy canvases in float32, and argmax tokens in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from context import Context
from store import Skipped
from torch import Tensor

from redraft.checkpoint.load import load_model
from redraft.checkpoint.locate import locate
from redraft.model.model import DiffusionGemma
from redraft.sampler import noise
from redraft.sampler.accept import accept, renoise
from redraft.sampler.noise import Stream

_SEEDS = (0, 1, 2**31, 2**63 + 5)
_BOUND = 0.1
_PROMPTS = (
    "add the new Daft Punk album to my Sunday morning playlist",
    "book a table for four at an Italian restaurant tonight",
    "what will the weather be like in Lisbon on Friday",
    "play some jazz from the fifties",
    "rate this book four out of five stars",
    "find the schedule for the next film at the corner cinema",
)


def run(context: Context) -> None:
    """All three; the last two need the bundled model."""
    device = context.clock.device
    store = context.store
    store.measure(("noise",), lambda: _noise(device))
    prompts, how = prompts_of(2 if context.small else len(_PROMPTS))
    steps = 4 if context.small else 16
    context.models.drop()
    store.measure(("greedy_float32",), lambda: _greedy(device, prompts, steps) | {"prompts": how}, needs_s=15.0)
    for reference in (torch.float32, torch.bfloat16):
        name = f"bfloat16_against_cpu_{str(reference).removeprefix('torch.')}"
        store.measure(
            (name,), lambda r=reference: _argmax(device, r, prompts, steps) | {"prompts": how}, needs_s=15.0
        )  # fmt: skip


def _noise(device: torch.device) -> dict[str, Any]:
    """Share of draws that differ between the device and the CPU."""
    found = []
    for place in (device, torch.device("cpu")):
        seeds = torch.tensor([noise.as_int64(seed) for seed in _SEEDS], device=place)
        counts = torch.arange(len(_SEEDS), device=place)
        for stream in Stream:
            ids = noise.token_ids(seeds, stream, counts, counts + 7, 256, 262144)
            found.append(torch.stack([ids, noise.words(seeds, stream, counts, counts + 7, 256)]).cpu())
            found.append(noise.uniform(seeds, stream, counts, counts + 7, 256).double().cpu()[None])
    half = len(found) // 2
    different = sum(int((left != right).sum()) for left, right in zip(found[:half], found[half:], strict=True))
    total = sum(part.numel() for part in found[:half])
    return {"equal": different == 0, "different": different, "draws": total}


def prompts_of(count: int) -> tuple[list[list[int]], str]:
    """Token ids of some sentences, or random ids where there is nothing to tokenize them with."""
    try:
        from redraft.text.chat import ChatTemplate
        from redraft.text.tokenizer import Tokenizer

        path = locate("mini")
        tokenizer, template = Tokenizer.from_directory(path), ChatTemplate.from_directory(path)
        if tokenizer is None or template is None:
            raise ImportError("the bundled model has no tokenizer")
        texts = [template.render([{"role": "user", "content": text}]) for text in _PROMPTS[:count]]
        return [tokenizer.encode(text) for text in texts], "sentences"
    except ImportError as error:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(3, 512, (count, 24), generator=generator).tolist()
        return ids, f"random ids, because of {error}"


def _mini(device: torch.device, dtype: torch.dtype) -> DiffusionGemma:
    try:
        return load_model(locate("mini"), device, dtype)
    except OSError as error:
        raise Skipped(f"no bundled model: {error}") from None


class Canvas:
    """Greedy denoising of one canvas: what each step is given, and what it found."""

    def __init__(self, model: DiffusionGemma, prompt: list[int]) -> None:
        self.model, device = model, model.device
        self.cache = model.new_cache()
        model.encode(torch.tensor([prompt], device=device), self.cache)
        self._zero = torch.zeros(1, dtype=torch.long, device=device)
        self._length, self._vocabulary = model.config.canvas_length, model.config.vocab_size
        self.tokens = self._fresh(Stream.START, 0)
        self.soft: Tensor | None = None

    def step(self, number: int, tokens: Tensor, soft: Tensor | None) -> Tensor:
        """[1, L] the likeliest tokens, given a canvas and what it is conditioned on; both move on."""
        model = self.model
        hidden = model.denoise_hidden(tokens, self.cache, soft)
        cold, any_draw = torch.zeros(1, device=model.device), torch.full(tokens.shape, 0.5, device=model.device)
        # The temperature is 0 for tokens. Entropies, and what the next step sees, are those of temperature 1.
        stats = model.head(hidden, cold + 1.0, any_draw)
        accepted = accept(stats.entropy, _BOUND)
        self.tokens = renoise(accepted, stats.argmax, self._fresh(Stream.RENOISE, number))
        self.soft = stats.soft_embedding
        return stats.argmax

    def steps(self, count: int) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """(canvas, conditioning, argmax) of each step."""
        for number in range(count):
            tokens, soft = self.tokens, self.soft
            yield tokens, soft, self.step(number, tokens, soft)

    def _fresh(self, stream: Stream, number: int) -> Tensor:
        return noise.token_ids(self._zero, stream, self._zero, self._zero + number, self._length, self._vocabulary)


def _greedy(device: torch.device, prompts: list[list[int]], steps: int) -> dict[str, Any]:
    """Canvases of the device and of the CPU, each by itself from the same noise."""
    models = [_mini(torch.device("cpu"), torch.float32), _mini(device, torch.float32)]
    same, tokens_same, total = 0, 0, 0
    for prompt in prompts:
        left, right = ([found for *_, found in Canvas(model, prompt).steps(steps)][-1].cpu() for model in models)
        same += int(torch.equal(left, right))
        tokens_same += int((left == right).sum())
        total += left.numel()
    return {"canvases": len(prompts), "equal": same, "token_share": tokens_same / total, "steps": steps}


def _argmax(device: torch.device, reference: torch.dtype, prompts: list[list[int]], steps: int) -> dict[str, Any]:
    """Share of a step's argmax tokens that are the CPU's, when both are given the CPU's canvas and conditioning."""
    theirs, ours = _mini(torch.device("cpu"), reference), _mini(device, torch.bfloat16)
    same, total = 0, 0
    by_step = [0] * steps
    for prompt in prompts:
        canvas = Canvas(ours, prompt)
        for number, (tokens, soft, expected) in enumerate(Canvas(theirs, prompt).steps(steps)):
            given = None if soft is None else soft.to(device, ours.dtype)
            agree = int((canvas.step(number, tokens.to(device), given).cpu() == expected).sum())
            same, total = same + agree, total + expected.numel()
            by_step[number] += agree
    each = total // steps
    return {"share": same / total, "least_step": min(by_step) / each, "steps": steps, "canvases": len(prompts)}
