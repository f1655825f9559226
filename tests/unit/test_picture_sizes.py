"""Which grid of soft tokens a picture becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from redraft.core.errors import OptionError
from redraft.vision.config import VisionConfig
from redraft.vision.patches import patches_of
from redraft.vision.size import BUDGETS, check_budget, grid_of

GRIDS = {
    (1, 1): [(8, 8), (11, 11), (16, 16), (23, 23), (33, 33)],
    (480, 640): [(7, 9), (10, 13), (14, 19), (20, 27), (28, 38)],
    (1080, 1920): [(6, 11), (8, 15), (12, 22), (17, 31), (25, 44)],
    (3508, 2480): [(9, 7), (14, 9), (19, 14), (28, 19), (39, 28)],
    (1, 10_000): [(1, 70), (1, 140), (1, 280), (1, 560), (1, 1120)],
    (10_000, 1): [(70, 1), (140, 1), (280, 1), (560, 1), (1120, 1)],
}
CONFIG = VisionConfig.from_dict({"vision_config": {"patch_size": 2}}, text_hidden_size=8)


@pytest.mark.parametrize("size", GRIDS, ids=str)
def test_grids(size):
    assert [grid_of(*size, budget, 48) for budget in BUDGETS] == GRIDS[size]


def test_the_order_of_operations_decides():
    assert grid_of(880, 616, 280, 48) == (19, 14)


def test_budgets():
    assert [check_budget(budget) for budget in BUDGETS] == list(BUDGETS)
    for wrong in (300, 0, True, "280", None, 280.0):
        with pytest.raises(OptionError, match="image_tokens must be 70, 140, 280, 560 or 1120, got"):
            check_budget(wrong)


def test_what_has_its_size_already_is_not_resized():
    rows, columns = grid_of(48, 48, 70, 6)
    pixels = np.random.default_rng(0).integers(0, 256, (rows * 6, columns * 6, 3), dtype=np.uint8)
    patches = patches_of(pixels, CONFIG, 70)
    assert (patches.rows, patches.columns, patches.soft_tokens) == (24, 24, 64)
    # The third patch of the second row: its pixels row by row, red, green and blue side by side.
    wanted = torch.from_numpy(pixels[2:4, 4:6]).flatten() * torch.tensor(1 / 255)
    assert torch.equal(patches.values[24 + 2], wanted)
    assert patches.places[24 + 2].tolist() == [2, 1]


def test_pixels_of_the_caller_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 20, 3), dtype=np.uint8)
    before = pixels.copy()
    pixels.setflags(write=False)
    patches_of(pixels, CONFIG, 70)
    assert np.array_equal(pixels, before)
