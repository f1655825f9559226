"""The recipe of a small model that sees: what it draws, and that it trains what the engine will run."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import redraft

FOLDER = Path(__file__).parents[2] / "recipes" / "icons"


@pytest.fixture
def recipe(monkeypatch):
    """Its two files, whose folder is on no path here."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import drawn
    import train

    yield drawn, train
    for name in ("drawn", "train"):
        sys.modules.pop(name)


def test_icons_are_drawn_from_a_seed(recipe):
    drawn, train = recipe
    first, again = (list(itertools.islice(train.examples(3), 30)) for _ in range(2))
    for (colour, kind, pixels), (_, _, other) in zip(first, again, strict=True):
        assert colour in drawn.COLOURS
        assert kind in drawn.KINDS
        assert np.array_equal(pixels, other)
        assert pixels.shape[0] == pixels.shape[1]
    assert not np.array_equal(first[0][2], next(train.examples(4))[2])


def test_it_trains_what_the_engine_runs(recipe, tmp_path):
    _, train = recipe
    trained = train.Trained(tmp_path, seed=0)
    batch = list(itertools.islice(train.examples(0), 2))
    loss = trained.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    still = [name for name, p in trained.vision.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert still == []
    trained.save()
    engine = redraft.load(tmp_path, dtype="float32", threads=1)
    assert engine.tokenize(train.message(batch[0][2])) == trained.prompt
    assert engine.generate(train.message(batch[0][2]), max_new_tokens=4, seed=0).finish_reason in ("stop", "length")
    reply = trained.tokenizer.encode(train.reply("red", "star"))
    assert len(reply) <= train.CANVAS
