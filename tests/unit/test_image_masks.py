"""Who sees whom inside a picture, and where pictures stand."""

from __future__ import annotations

import pytest
import torch

from redraft.core.errors import OptionError, PromptError
from redraft.kernels.attention import causal_mask
from redraft.model.images import READINGS, check_reading, image_mask, placed_in

RUNS = [(3, 68), (72, 132)]
T = 140


@pytest.mark.parametrize("window", [65, 66, 70, 100])
def test_readings_agree_on_sliding_layers_while_a_picture_fits_the_window(window):
    made = [image_mask(T, T, window, RUNS, reading) for reading in ("google", "gemma4", "generate")]
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], causal_mask(T, T, window))


def test_readings_part_where_a_picture_is_longer_than_the_window():
    google, gemma4, generate, causal = (image_mask(T, T, 16, RUNS, reading) for reading in READINGS)
    # The first place of the picture looks ahead, and its last one back.
    assert google[3].nonzero().flatten().tolist() == list(range(0, 3 + 16))
    assert gemma4[3].nonzero().flatten().tolist() == list(range(0, 68))
    assert generate[67].nonzero().flatten().tolist() == list(range(3, 68))
    assert causal[67].nonzero().flatten().tolist() == list(range(52, 68))
    assert google[67].nonzero().flatten().tolist() == list(range(52, 68))


@pytest.mark.parametrize("reading", READINGS)
def test_full_layers(reading):
    mask = image_mask(T, T, None, RUNS, reading)
    ahead = mask & ~causal_mask(T, T, None)
    assert ahead.any() == (reading == "generate")
    # Boundaries, text and the other picture are never seen ahead.
    assert not ahead[:3].any()
    assert not ahead[68:72].any()
    assert not ahead[:, 68:73].any()


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("window", [None, 16, 200])
def test_a_piece_behind_a_prefix_sees_what_it_does_in_the_whole(reading, window):
    whole = image_mask(T, T, window, RUNS, reading)
    first, kept = 70, 70 if window is None else min(70, window - 1)
    piece = image_mask(T - first, T - first + kept, window, [(2, 62)], reading)
    assert torch.equal(piece, whole[first:, first - kept :])


def test_placeholders():
    soft = [torch.zeros(2, 4), torch.zeros(3, 4)]
    ids = [1, 7, 9, 9, 8, 7, 9, 9, 9, 8]
    assert [placed.run for placed in placed_in(ids, 9, soft)] == [(2, 4), (6, 9)]
    assert placed_in([1, 2], 9, []) == []
    for wrong in (soft[:1], soft[::-1], [*soft, soft[0]]):
        with pytest.raises(PromptError, match=r"pictures of \[2, 3\] tokens"):
            placed_in(ids, 9, wrong)


def test_unknown_reading():
    assert [check_reading(reading) for reading in READINGS] == list(READINGS)
    with pytest.raises(OptionError, match="google, gemma4, generate, causal"):
        check_reading("vision")
