"""Reads beside transformers: the same canvas, seed tokens and labels given by hand, the same numbers."""

from __future__ import annotations

import pytest
import torch
from reference import TOLERANCE, Story, random_ids

import redraft
from checkpoints import CANVAS, EOS, PAD
from redraft.core.reads import CanvasRead, CausalRead, Slot


@pytest.fixture(scope="module")
def engine(checkpoint):
    return redraft.load(checkpoint, device="cpu", dtype="float32")


def told(logits: torch.Tensor, wanted: tuple[int, ...]) -> list[float]:
    return torch.log_softmax(logits.double(), -1)[list(wanted)].tolist()


@pytest.mark.parametrize("length", [3, 21, 60])
def test_a_slot_reads_what_transformers_says_of_it(engine, reference, length):
    prompt, noise = random_ids(length, seed=length), random_ids(2, seed=length + 1)
    canvas = torch.tensor([int(noise[0]), EOS, PAD, int(noise[1]), *[PAD] * (CANVAS - 4)])
    labels = (17, 5, 80, 198)
    slots = (Slot(position=0, token_ids=labels), Slot(position=3, token_ids=(1, 2)))
    read = CanvasRead(prompt=tuple(prompt.tolist()), canvas=tuple(canvas.tolist()), seed=0, slots=slots)
    ((draw,), *_) = (reading.draws for reading in engine.read([read]))
    story = Story(reference.sdpa)
    story.encode(prompt[None])
    logits = story.denoise(canvas[None])[0]
    for slot, found in zip(slots, draw.slots, strict=True):
        row = logits[slot.position].double()
        wanted = torch.tensor(told(row, slot.token_ids))
        assert found.log_probs == pytest.approx(wanted.tolist(), abs=TOLERANCE)
        among = torch.softmax(torch.tensor(found.log_probs, dtype=torch.float64), -1)
        assert torch.allclose(among, torch.softmax(wanted.double(), -1), atol=1e-5, rtol=0)
        assert found.argmax == int(row.argmax())
        table = torch.log_softmax(row, -1)
        assert found.entropy_nats == pytest.approx(float(-(table.exp() * table).sum()), abs=1e-4)


def test_the_causal_mode_reads_what_transformers_says_of_each_continuation(engine, reference):
    prompt, continuations = random_ids(30, seed=5), [(7, 9, 4), (7,), (100, 3), (8, 8, 8, 8, 8)]
    read = CausalRead(prompt=tuple(prompt.tolist()), token_ids=(3, 7), continuations=tuple(continuations))
    ((draw,), *_) = (reading.draws for reading in engine.read([read]))
    for continuation, found in zip(continuations, draw.log_weights, strict=True):
        story = Story(reference.sdpa)
        logits = story.encode(torch.cat([prompt, torch.tensor(continuation)])[None])[0, len(prompt) - 1 : -1]
        table = torch.log_softmax(logits.double(), -1)
        assert found == pytest.approx(float(table.gather(-1, torch.tensor(continuation)[:, None]).sum()), abs=1e-4)
        if continuation == (7,):
            assert draw.slots[0].log_probs[1] == pytest.approx(found, abs=1e-9)
