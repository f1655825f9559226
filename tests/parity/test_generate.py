"""`generate` against the reference's, token for token, when both draw the same noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import load_reference, random_ids
from torch import Tensor

import redraft
from checkpoints import CANVAS, VOCAB, edit_json, quiet, write_checkpoint
from redraft.engine.stops import Stops
from redraft.kernels.head import inverse_cdf
from redraft.sampler import noise
from redraft.sampler.noise import Stream

STEPS = 6
CANVASES = 3
ACCEPT_ALL = 1e9
NEVER = VOCAB - 3  # an end-of-turn id for runs that must not end early


@dataclass
class Draws:
    """redraft's noise, handed out in the order in which the reference asks for it."""

    seed: int
    canvas: int = -1
    step: int = 0
    steps: int = 0

    def coordinates(self) -> tuple[Tensor, Tensor, Tensor]:
        seed, canvas, step = (torch.tensor([n]) for n in (noise.as_int64(self.seed), self.canvas, self.step))
        return seed, canvas, step

    def token_ids(self, stream: Stream, length: int) -> Tensor:
        seed, canvas, step = self.coordinates()
        return noise.token_ids(seed, stream, canvas, step, length, VOCAB)

    def start(self, length: int) -> Tensor:
        self.canvas, self.step = self.canvas + 1, 0
        return self.token_ids(Stream.START, length)

    def multinomial(self, probabilities: Tensor, num_samples: int) -> Tensor:
        assert num_samples == 1
        seed, canvas, step = self.coordinates()
        uniform = noise.uniform(seed, Stream.SAMPLE, canvas, step, probabilities.shape[0])[0]
        return inverse_cdf(probabilities, uniform)[:, None]

    def renoise(self, length: int) -> Tensor:
        ids = self.token_ids(Stream.RENOISE, length)
        self.step += 1
        self.steps += 1
        return ids


RULE = {"settled_nats": 0.0, "settled_steps": 0}


@dataclass(frozen=True)
class Outcome:
    """What the reference made of a prompt: the ids after it, padding included, and its denoising steps."""

    ids: list[int]
    steps: int


@pytest.fixture(scope="module")
def calm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps feed on each other: at the usual gain the reference's own attention implementations part ways by step 5
    (1e-5, 1e-4, 1e-2, 1e-1, 1, 10 logits). Here they stay within 1e-3."""
    return write_checkpoint(tmp_path_factory.mktemp("calm"), gain=0.12)


@pytest.fixture(scope="module")
def calm_reference(calm_checkpoint: Path) -> Any:
    return load_reference(calm_checkpoint)


@pytest.fixture
def reply_of(calm_reference: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    with quiet():
        from transformers.models.diffusion_gemma import generation_diffusion_gemma as generation

    class Sampler(generation.EntropyBoundSampler):
        """Only where the ids come from is ours; what becomes of them is the reference's."""

        draws: Draws
        renoising = False

        def initialize_canvas(self, batch_size: int, device: torch.device) -> Tensor:
            return (self.draws.renoise if self.renoising else self.draws.start)(self.canvas_length)

        def renoise_canvas(self, accepted_canvas: Tensor, cur_step: int) -> Tensor:
            self.renoising = True
            try:
                return super().renoise_canvas(accepted_canvas, cur_step)
            finally:
                self.renoising = False

    def run(prompt: list[int], *, seed: int, entropy_bound: float, **options: Any) -> Outcome:
        Sampler.draws = draws = Draws(seed)
        with monkeypatch.context() as patch, quiet():
            patch.setattr(generation, "EntropyBoundSampler", Sampler)
            patch.setattr(torch, "multinomial", draws.multinomial)
            sequences = calm_reference.generate(
                torch.tensor([prompt]),
                sampler_config=generation.EntropyBoundSamplerConfig(entropy_bound),
                **options,
            ).sequences
        return Outcome(sequences[0, len(prompt) :].tolist(), draws.steps)

    return run


@pytest.fixture
def engine_with(calm_checkpoint: Path, tmp_path: Path) -> Callable[..., Any]:
    """An engine whose generation_config.json has these entries, with the reference's stop alone."""

    def make(**entries: Any) -> Any:
        directory = shutil.copytree(calm_checkpoint, tmp_path / "model")
        edit_json(directory / "generation_config.json", lambda config: config.update(entries))
        (directory / "redraft.json").write_text(json.dumps(RULE))
        return redraft.load(directory, device="cpu", dtype="float32")

    return make


def prompt_of(length: int) -> list[int]:
    return random_ids(length, seed=length).tolist()


@pytest.mark.parametrize("length", [1, 13, 40])
@pytest.mark.parametrize("entropy_bound", [0.1, 3.0, ACCEPT_ALL])
def test_three_canvases(
    reply_of: Callable[..., Outcome], engine_with: Callable[..., Any], entropy_bound: float, length: int
) -> None:
    options = dict(max_new_tokens=CANVASES * CANVAS, max_denoising_steps=STEPS, entropy_bound=entropy_bound)
    expected = reply_of(prompt_of(length), seed=length, eos_token_id=NEVER, **options)
    ours = engine_with(eos_token_id=NEVER).generate(prompt_of(length), seed=length, **options)
    assert list(ours.token_ids) == expected.ids
    assert ours.finish_reason == "length"
    assert ours.stats.denoising_steps == expected.steps
    assert ours.stats.canvases == CANVASES


@pytest.mark.parametrize("threshold", [0, 1, 2])
def test_early_stop_of_denoising(
    reply_of: Callable[..., Outcome], engine_with: Callable[..., Any], threshold: int
) -> None:
    options = dict(
        max_new_tokens=CANVASES * CANVAS,
        max_denoising_steps=10,
        entropy_bound=1.0,
        t_max=0.6,
        t_min=0.1,
        stability_threshold=threshold,
        confidence_threshold=0.5,
    )
    expected = reply_of(prompt_of(9), seed=1, eos_token_id=NEVER, **options)
    ours = engine_with(eos_token_id=NEVER).generate(prompt_of(9), seed=1, **options)
    assert expected.steps < CANVASES * 10, "some canvas should stop early"
    assert list(ours.token_ids) == expected.ids
    assert ours.stats.denoising_steps == expected.steps


@pytest.mark.parametrize("entropy_bound", [0.1, ACCEPT_ALL])
@pytest.mark.parametrize("where", [0, 3, CANVAS, 2 * CANVAS - 1])
def test_end_of_turn(
    reply_of: Callable[..., Outcome], engine_with: Callable[..., Any], where: int, entropy_bound: float
) -> None:
    """A pad before the end is an ordinary token, and what follows the end is padding."""
    options = dict(max_new_tokens=CANVASES * CANVAS, max_denoising_steps=STEPS, entropy_bound=entropy_bound)
    prompt = prompt_of(21)
    free = reply_of(prompt, seed=2, eos_token_id=NEVER, **options)
    eos = free.ids[where]
    first = free.ids.index(eos)
    pad = free.ids[first - 1] if first else 0
    expected = reply_of(prompt, seed=2, eos_token_id=[eos, NEVER], pad_token_id=pad, **options)
    canvases = first // CANVAS + 1
    assert expected.ids == free.ids[: first + 1] + [pad] * (canvases * CANVAS - first - 1)

    engine = engine_with(eos_token_id=[eos, NEVER], pad_token_id=pad)
    ours = engine.generate(prompt, seed=2, preset="reference", **options)
    assert list(ours.token_ids) == free.ids[:first]
    assert ours.finish_reason == "stop"
    assert (ours.stats.canvases, ours.stats.denoising_steps) == (canvases, expected.steps)
    assert ours.stats.generated_tokens == first


def test_max_new_tokens_cuts_the_last_canvas(reply_of: Callable[..., Outcome], engine_with: Callable[..., Any]) -> None:
    options = dict(max_new_tokens=CANVAS + 3, max_denoising_steps=STEPS, entropy_bound=1.0)
    expected = reply_of(prompt_of(5), seed=3, eos_token_id=NEVER, **options)
    ours = engine_with(eos_token_id=NEVER).generate(prompt_of(5), seed=3, **options)
    assert len(expected.ids) == 2 * CANVAS, "the reference overshoots to whole canvases"
    assert list(ours.token_ids) == expected.ids[: CANVAS + 3]
    assert ours.finish_reason == "length"


def test_a_batch_is_each_request_alone(reply_of: Callable[..., Outcome], engine_with: Callable[..., Any]) -> None:
    lengths, seeds = (3, 30, 17), (5, 2**64 - 1, 5)
    options = dict(max_new_tokens=2 * CANVAS, max_denoising_steps=STEPS, entropy_bound=1.0)
    requests = [
        redraft.Request(prompt=prompt_of(length), options={**options, "seed": seed})
        for length, seed in zip(lengths, seeds, strict=True)
    ]
    replies = engine_with(eos_token_id=NEVER).generate_batch(requests)
    for reply, length, seed in zip(replies, lengths, seeds, strict=True):
        expected = reply_of(prompt_of(length), seed=seed, eos_token_id=NEVER, **options)
        assert list(reply.token_ids) == expected.ids


def test_going_on_from_an_earlier_turn(reply_of: Callable[..., Outcome], engine_with: Callable[..., Any]) -> None:
    """A second turn that reuses the first one's cache says what it would have said without it."""
    options = dict(max_new_tokens=2 * CANVAS, max_denoising_steps=STEPS, entropy_bound=1.0, seed=7)
    engine = engine_with(eos_token_id=NEVER)
    engine.admission.stops = Stops(canvas_length=CANVAS, opening=tuple(prompt_of(12)[-2:]))
    first = engine.generate(prompt_of(12), **options)
    engine.generate(prompt_of(20), **options)  # a longer conversation of someone else's
    prompt = prompt_of(12) + list(first.token_ids) + prompt_of(4)
    second = engine.generate(prompt, **options)
    assert second.stats.cached_tokens > 0
    assert list(second.token_ids) == reply_of(prompt, eos_token_id=NEVER, **options).ids
