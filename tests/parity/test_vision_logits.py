"""Logits of prompts with pictures against transformers, whose encoder is handed its masks: its `forward` makes those of
pictures and throws them away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import TOLERANCE, load_reference
from torch import Tensor

import redraft
from checkpoints import CANVAS, VOCAB, WINDOW, quiet
from redraft.checkpoint.vision import load_vision
from redraft.model.images import READINGS, Reading, image_mask, placed_in
from redraft.vision.patches import Patches, patches_of
from seeing import BOI, EOI, IMAGE, noise_pixels, padded, write_seeing

BUDGET = 70


class Seeing:
    """One checkpoint in both, and two pictures of unequal size."""

    def __init__(self, directory: Path) -> None:
        self.ours, self.theirs = redraft.load_model(directory), load_reference(directory)
        vision = load_vision(directory)
        self.patches = [patches_of(noise_pixels(*size), vision.config, BUDGET) for size in ((37, 91), (120, 50))]
        self.soft = [vision(patches) for patches in self.patches]
        assert [len(soft) for soft in self.soft] == [65, 60]

    def encode(self, ids: Tensor, cache: Any, pictures: Sequence[int], reading: Reading = "google") -> Tensor:
        """Our logits of [1, T] ids with these of the pictures in them."""
        placed = placed_in(ids[0].tolist(), IMAGE, [self.soft[n] for n in pictures])
        return self.ours.logits(self.ours.encode(ids, cache, images=[placed], reading=reading))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    return Seeing(write_seeing(tmp_path_factory.mktemp("seeing")))


def prompt(*parts: int | str, seed: int = 0) -> Tensor:
    """[1, T] ids: so many of text for a number, a picture's with its boundaries for its number as a string."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids += torch.randint(3, EOI, (part,), generator=generator).tolist()
        else:
            ids += [BOI, *[IMAGE] * (65, 60)[int(part)], EOI]
    return torch.tensor([ids])


def masks_of(ids: Tensor, reading: str, window: int = WINDOW) -> dict[str, Tensor]:
    """The masks of a reading, position by position as it is defined."""
    row = ids[0].tolist()
    runs, run = [], 0
    for index, token in enumerate(row):
        run += token == IMAGE and (index == 0 or row[index - 1] != IMAGE)
        runs.append(run if token == IMAGE else 0)
    full, sliding = (torch.zeros(len(row), len(row), dtype=torch.bool) for _ in range(2))
    for q in range(len(row)):
        for j in range(len(row)):
            causal, near, same = j <= q, j > q - window, runs[q] == runs[j] != 0
            full[q, j] = causal or (same and reading == "generate")
            sliding[q, j] = {
                "causal": causal and near,
                "generate": (causal and near) or same,
                "gemma4": (causal or same) and near,
                "google": (causal or same) and near and j < q + window,
            }[reading]
    return {"full_attention": full[None, None], "sliding_attention": sliding[None, None]}


@torch.no_grad()
def reference_logits(
    model: Any, ids: Tensor, pictures: Sequence[Patches], masks: Any, canvas: Tensor, beliefs: Tensor
) -> list[Tensor]:
    """transformers' logits of a prompt, and of a canvas behind it without and with a signal."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    values, places = padded(pictures, BUDGET)
    hidden = model.model.encoder(
        input_ids=ids, pixel_values=values, image_position_ids=places, attention_mask=masks, cache=cache
    ).last_hidden_state
    cap = model.final_logit_softcapping
    encoded = torch.tanh(model.lm_head(hidden).float() / cap) * cap
    steps = [model(decoder_input_ids=canvas, cache=cache, self_conditioning_logits=x).logits for x in (None, beliefs)]
    return [encoded, *steps]


def our_logits(seeing: Seeing, pieces: Sequence[tuple[Tensor, Sequence[int]]], reading: Reading, *steps: Any) -> list:
    """Ours, of a prompt in pieces."""
    canvas, beliefs = steps
    cache = seeing.ours.new_cache(batch_size=1)
    encoded = torch.cat([seeing.encode(ids, cache, pictures, reading) for ids, pictures in pieces], dim=1)
    soft = seeing.ours.soft_embedding(beliefs)
    return [encoded, seeing.ours.denoise(canvas, cache), seeing.ours.denoise(canvas, cache, soft)]


def apart(left: Sequence[Tensor], right: Sequence[Tensor]) -> list[float]:
    return [float((one - other).abs().max()) for one, other in zip(left, right, strict=True)]


CANVAS_IDS = torch.randint(0, VOCAB, (1, CANVAS), generator=torch.Generator().manual_seed(5))
BELIEFS = 4 * torch.randn(1, CANVAS, VOCAB, generator=torch.Generator().manual_seed(6))
STEPS = CANVAS_IDS, BELIEFS
# Behind a picture the canvas sees nothing of it, half of it, or all that a sliding window holds.
PROMPTS = [(5, "0", 2 * WINDOW), (5, "0", WINDOW // 2), ("1",), (3, "0", 4, "1", 6), (1, "1", "0", 1)]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("parts", PROMPTS, ids=str)
def test_logits(seeing: Seeing, parts: tuple[int | str, ...], reading: Reading) -> None:
    ids, pictures = prompt(*parts), [int(part) for part in parts if isinstance(part, str)]
    masks = masks_of(ids, reading)
    theirs = reference_logits(seeing.theirs, ids, [seeing.patches[n] for n in pictures], masks, *STEPS)
    ours = our_logits(seeing, [(ids, pictures)], reading, *STEPS)
    assert max(apart(ours, theirs)) <= TOLERANCE


def test_the_readings_differ(seeing: Seeing) -> None:
    """Guards the other tests: a mask that is another reading's must not pass them."""
    ids = prompt(5, "0", 4)
    made = {reading: our_logits(seeing, [(ids, [0])], reading, *STEPS) for reading in READINGS}
    for one in READINGS:
        for other in READINGS:
            assert one == other or max(apart(made[one], made[other])) > 100 * TOLERANCE


def test_which_picture_stands_where_matters(seeing: Seeing) -> None:
    ids = prompt(3, "0", 4)
    zeros = torch.zeros(1, *seeing.soft[0].shape)
    placed = [placed_in(ids[0].tolist(), IMAGE, [soft]) for soft in (seeing.soft[0], zeros[0])]
    seen, unseen = (seeing.ours.encode(ids, seeing.ours.new_cache(), images=[one]) for one in placed)
    plain = seeing.ours.encode(ids, seeing.ours.new_cache())
    assert (seen - unseen).abs().max() > 0.1
    assert (unseen - plain).abs().max() > 0.1
    assert torch.allclose(seen[:, :4], plain[:, :4], rtol=0, atol=TOLERANCE)


def test_pictures_of_one_size_are_told_apart_by_their_place(seeing: Seeing) -> None:
    ids = prompt(3, "1", 4, "1", 2)
    pair = [seeing.soft[1], seeing.soft[1].flip(0)]
    made = []
    for soft in (pair, pair[::-1]):
        placed = placed_in(ids[0].tolist(), IMAGE, soft)
        made.append(seeing.ours.encode(ids, seeing.ours.new_cache(), images=[placed]))
    assert (made[0] - made[1])[:, -1].abs().max() > 0.01


def test_forward_of_transformers_is_causal(seeing: Seeing) -> None:
    """It drops its masks, type ids or not."""
    ids = prompt(5, "0", 4)
    theirs = reference_logits(seeing.theirs, ids, seeing.patches[:1], None, *STEPS)
    assert max(apart(our_logits(seeing, [(ids, [0])], "causal", *STEPS), theirs)) <= TOLERANCE


def test_masks_of_transformers_generate(seeing: Seeing, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = prompt(3, "0", 4, "1", 6)
    values, places = padded(seeing.patches, BUDGET)
    encoder, caught = seeing.theirs.model.encoder.language_model, []
    run = encoder.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        caught.append(kwargs["attention_mask"])
        return run(*args, **kwargs)

    monkeypatch.setattr(encoder, "forward", spy)
    with quiet():
        seeing.theirs.generate(
            input_ids=ids,
            pixel_values=values,
            image_position_ids=places,
            mm_token_type_ids=(ids == IMAGE).long(),
            max_new_tokens=CANVAS,
            max_denoising_steps=1,
        )
    runs = [placed.run for placed in placed_in(ids[0].tolist(), IMAGE, seeing.soft)]
    T = ids.shape[1]
    for kind, window in (("full_attention", None), ("sliding_attention", WINDOW)):
        mask = caught[0][kind][0, 0]
        mask = mask if mask.dtype == torch.bool else mask == 0
        assert torch.equal(mask, image_mask(T, T, window, runs, "generate"))


@pytest.mark.parametrize("reading", READINGS)
def test_pieces_that_hold_whole_pictures(seeing: Seeing, reading: Reading) -> None:
    whole = prompt(3, "0", 4, "1", 6)
    cuts = [3, 70, 74, 136]
    pieces = [
        (piece, pictures)
        for piece, pictures in zip(whole.tensor_split(cuts, dim=1), ([], [0], [], [1], []), strict=True)
    ]
    assert [piece.shape[1] for piece, _ in pieces] == [3, 67, 4, 62, 6]
    together = our_logits(seeing, [(whole, [0, 1])], reading, *STEPS)
    assert max(apart(our_logits(seeing, pieces, reading, *STEPS), together)) <= TOLERANCE


def test_a_piece_may_not_cut_a_picture(seeing: Seeing) -> None:
    ids = prompt(3, "0")
    placed = placed_in(ids[0].tolist(), IMAGE, seeing.soft[:1])
    with pytest.raises(ValueError, match="does not fit a row of 40 ids"):
        seeing.ours.encode(ids[:, :40], seeing.ours.new_cache(), images=[placed])
    with pytest.raises(ValueError, match="pictures of 1 rows for 2"):
        seeing.ours.encode(ids.expand(2, -1), seeing.ours.new_cache(2), images=[placed])


def test_a_batch_with_and_without_pictures_equals_each_alone(seeing: Seeing) -> None:
    rows = [prompt(3, "0", 4, "1", 6), prompt(7, "1", 2, seed=1), prompt(20, seed=2)]
    pictures = [[0, 1], [1], []]
    placed = [
        placed_in(row[0].tolist(), IMAGE, [seeing.soft[n] for n in shown])
        for row, shown in zip(rows, pictures, strict=True)
    ]
    lengths = [row.shape[1] for row in rows]
    batch = torch.zeros(3, max(lengths), dtype=torch.long)
    for number, row in enumerate(rows):
        batch[number, : lengths[number]] = row
    cache = seeing.ours.new_cache(3)
    together = seeing.ours.encode(batch, cache, lengths, placed)
    steps = seeing.ours.denoise(CANVAS_IDS.expand(3, -1), cache)
    for number, (row, shown, length) in enumerate(zip(rows, placed, lengths, strict=True)):
        alone = seeing.ours.new_cache(1)
        hidden = seeing.ours.encode(row, alone, images=[shown] if shown else ())
        assert (hidden[0] - together[number, :length]).abs().max() <= TOLERANCE
        assert (seeing.ours.denoise(CANVAS_IDS, alone)[0] - steps[number]).abs().max() <= TOLERANCE
    assert cache.lengths.tolist() == lengths
