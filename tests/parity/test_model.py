"""The model against transformers on small random checkpoints, in float32 unless a test says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from reference import Reference, Story, load_reference, prefilled, random_ids
from torch import Tensor

import redraft
from checkpoints import CANVAS, VOCAB, WINDOW, write_checkpoint


def encode(model: Any, token_ids: Tensor, cache: Any, lengths: list[int] | None = None) -> Tensor:
    return model.logits(model.encode(token_ids, cache, lengths=lengths))


@pytest.mark.parametrize("length", [1, 5, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW + 5])
def test_encode(model: Any, reference: Reference, length: int) -> None:
    prompt = random_ids(1, length, seed=length)
    ours = encode(model, prompt, model.new_cache(batch_size=1, max_length=64))
    reference.check([ours], lambda story: [story.encode(prompt)])


@pytest.mark.parametrize("split", [1, 10, WINDOW, 30, 50])
def test_encode_in_two_pieces_equals_one(model: Any, reference: Reference, split: int) -> None:
    prompt = random_ids(1, 51, seed=1)
    cache = model.new_cache(batch_size=1, max_length=64)
    ours = torch.cat([encode(model, prompt[:, :split], cache), encode(model, prompt[:, split:], cache)], dim=1)
    assert cache.lengths.tolist() == [51]
    reference.check([ours], lambda story: [story.encode(prompt)])


def test_a_cache_grows_beyond_max_length(model: Any, reference: Reference) -> None:
    prompt = random_ids(1, 51, seed=2)
    cache = model.new_cache(batch_size=1, max_length=4)
    ours = torch.cat([encode(model, piece, cache) for piece in prompt.split(3, dim=1)], dim=1)
    reference.check([ours], lambda story: [story.encode(prompt)])


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, 3 * WINDOW + 5])
def test_denoise(model: Any, reference: Reference, length: int) -> None:
    prompt, canvas = random_ids(1, length, seed=length), random_ids(1, CANVAS, seed=99)
    cache = prefilled(model, prompt)
    first = model.denoise(canvas, cache)
    beliefs = first / 0.7
    second = model.denoise(canvas, cache, self_conditioning=model.soft_embedding(beliefs))

    def script(story: Story) -> list[Tensor]:
        story.encode(prompt)
        return [story.denoise(canvas), story.denoise(canvas, beliefs)]

    assert first.dtype == torch.float32
    assert (first - second).abs().max() > 1, "self-conditioning should matter in this checkpoint"
    reference.check([first, second], script)


def test_zero_logits_are_not_a_zero_signal(model: Any, reference: Reference) -> None:
    prompt, canvas = random_ids(1, 9, seed=3), random_ids(1, CANVAS, seed=4)
    zeros = torch.zeros(1, CANVAS, model.config.vocab_size)
    ours = model.denoise(canvas, prefilled(model, prompt), self_conditioning=model.soft_embedding(zeros))

    def script(story: Story) -> list[Tensor]:
        story.encode(prompt)
        return [story.denoise(canvas, zeros)]

    reference.check([ours], script)


@pytest.mark.parametrize("length", [5, 40])
def test_canvases_in_sequence(model: Any, reference: Reference, length: int) -> None:
    prompt, canvases = random_ids(1, length, seed=5), random_ids(4, 1, CANVAS, seed=6)

    def script(encode: Any, denoise: Any) -> list[Tensor]:
        results = [encode(prompt)]
        for canvas in canvases:
            results.append(denoise(canvas))
            results.append(encode(results[-1].argmax(-1)))
        return results

    cache = model.new_cache(batch_size=1, max_length=length)
    ours = script(lambda ids: encode(model, ids, cache), lambda canvas: model.denoise(canvas, cache))
    reference.check(ours, lambda story: script(story.encode, story.denoise))


def test_batch_of_unequal_lengths_equals_each_alone(model: Any, reference: Reference) -> None:
    lengths, commits = [3, 40, WINDOW, 21], [CANVAS, 0, 5, 1]
    prompts, canvases = random_ids(4, 40, seed=7), random_ids(2, 4, CANVAS, seed=8)
    cache = model.new_cache(batch_size=4, max_length=64)
    prompt_logits = encode(model, prompts, cache, lengths)
    first = model.denoise(canvases[0], cache)
    commit_logits = encode(model, canvases[0], cache, commits)
    second = model.denoise(canvases[1], cache, self_conditioning=model.soft_embedding(first))
    assert cache.lengths.tolist() == [n + c for n, c in zip(lengths, commits, strict=True)]

    for b, (length, commit) in enumerate(zip(lengths, commits, strict=True)):

        def script(story: Story, b: int = b, length: int = length, commit: int = commit) -> list[Tensor]:
            row = slice(b, b + 1)
            results = [story.encode(prompts[row, :length]), story.denoise(canvases[0, row])]
            if commit:
                results.append(story.encode(canvases[0, row, :commit]))
            return [*results, story.denoise(canvases[1, row], first[row])]

        row = slice(b, b + 1)
        committed = [commit_logits[row, :commit]] if commit else []
        reference.check([prompt_logits[row, :length], first[row], *committed, second[row]], script)


def test_the_two_sets_of_layer_scalars_matter(model: Any, checkpoint: Path) -> None:
    """Guards the other tests: a model that mixes the sets up must not pass them."""
    swapped = load_reference(checkpoint)
    for one, other in zip(swapped.model.encoder.language_model.layers, swapped.model.decoder.layers, strict=True):
        one.layer_scalar, other.layer_scalar = other.layer_scalar, one.layer_scalar
    prompt, canvas = random_ids(1, 20, seed=9), random_ids(1, CANVAS, seed=10)
    story, cache = Story(swapped), model.new_cache(batch_size=1, max_length=64)
    assert (encode(model, prompt, cache) - story.encode(prompt)).abs().max() > 0.1
    assert (model.denoise(canvas, cache) - story.denoise(canvas)).abs().max() > 0.1


@pytest.mark.parametrize("seed", [1, 2])
def test_other_shapes(tmp_path: Path, seed: int) -> None:
    """Three experts a token, one key-value head for each query head, a canvas longer than the window."""
    shape = dict(top_k_experts=3, num_key_value_heads=4, num_global_key_value_heads=2, sliding_window=6)
    write_checkpoint(tmp_path, seed=seed, canvas_length=16, **shape)
    model, reference = redraft.load_model(tmp_path), Reference(tmp_path)
    prompt, canvas = random_ids(1, 11, seed=seed), random_ids(1, 16, seed=seed + 10)

    def script(encode: Any, denoise: Any) -> list[Tensor]:
        return [encode(prompt), denoise(canvas), encode(canvas), denoise(canvas)]

    cache = model.new_cache(batch_size=1, max_length=64)
    ours = script(lambda ids: encode(model, ids, cache), lambda ids: model.denoise(ids, cache))
    reference.check(ours, lambda story: script(story.encode, story.denoise))


@pytest.mark.parametrize("seed", [3, 6])
def test_bfloat16(tmp_path: Path, seed: int) -> None:
    """As near to the reference as its two attention implementations are to each other."""
    write_checkpoint(tmp_path, seed=seed, gain=0.08, dtype=torch.bfloat16)
    model, reference = redraft.load_model(tmp_path, dtype=torch.bfloat16), Reference(tmp_path, torch.bfloat16)
    agreed, between, gaps, spreads = [], [], [], []
    for length in (3, WINDOW, 40, 61):
        prompt, canvases = random_ids(1, length, seed=length), random_ids(2, 1, 3 * CANVAS, seed=length)
        noise = torch.randn(1, 3 * CANVAS, VOCAB, generator=torch.Generator().manual_seed(length))
        beliefs = (8 * noise).to(torch.bfloat16)
        cache = prefilled(model, prompt)
        ours = [
            model.denoise(canvases[0], cache),
            model.denoise(canvases[1], cache, self_conditioning=model.soft_embedding(beliefs)),
        ]

        def script(
            story: Story, prompt: Tensor = prompt, canvases: Tensor = canvases, beliefs: Tensor = beliefs
        ) -> list[Tensor]:
            story.encode(prompt)
            return [story.denoise(canvases[0]), story.denoise(canvases[1], beliefs)]

        for mine, sdpa, eager in zip(ours, script(Story(reference.sdpa)), script(Story(reference.eager)), strict=True):
            agreed.append((mine.argmax(-1) == sdpa.argmax(-1)).float().mean())
            between.append((eager.argmax(-1) == sdpa.argmax(-1)).float().mean())
            gaps.append((mine - sdpa).abs().mean())
            spreads.append((eager - sdpa).abs().mean())
    # Two of 192 positions more may be ties that fall to the other side.
    assert torch.stack(agreed).mean() >= torch.stack(between).mean() - 2.1 / (len(agreed) * 3 * CANVAS)
    assert torch.stack(gaps).mean() <= 1.25 * torch.stack(spreads).mean()
