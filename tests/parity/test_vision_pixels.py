"""From files to patches against transformers' own processor, bit for bit."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processor import APART, digest

from checkpoints import quiet
from picture_files import cases, drawn, encoded
from redraft.vision.config import VisionConfig
from redraft.vision.patches import patches_of
from redraft.vision.picture import picture_of
from redraft.vision.size import BUDGETS, grid_of

CONFIG = VisionConfig.from_dict({"vision_config": {}}, text_hidden_size=64)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.full)])
def test_patches_equal_the_processor_s_bit_for_bit(every: int) -> None:
    if not APART.exists():
        pytest.skip(f"no torchvision in {APART}: make test puts one there")
    script = Path(__file__).with_name("processor.py")
    command = [sys.executable, "-W", "ignore", str(script), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout)
    assert len(theirs) == len(range(0, 200, every))
    ours = {}
    for case in cases(every):
        patches = patches_of(picture_of(case.data).pixels, CONFIG, case.image_tokens)
        ours[case.name] = digest(patches.values, patches.places)
    assert [name for name in theirs if ours[name] != theirs[name]] == []


def test_sizes_equal_the_processor_s() -> None:
    with quiet():
        from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size
    generator = random.Random(0)
    # Such as 880 x 616, which another order of the same products makes a row wider.
    sizes = [(880, 616), (616, 880), (1, 1), (3, 900), (900, 3), (1, 10_000), (10_000, 1), (672, 960)]
    sizes += [(generator.randint(1, 3000), generator.randint(1, 3000)) for _ in range(1000)]
    sizes += [(generator.randint(1, 65_535), generator.randint(1, 40)) for _ in range(300)]
    for height, width in sizes:
        for image_tokens in BUDGETS:
            rows, columns = grid_of(height, width, image_tokens, 48)
            wanted = get_aspect_ratio_preserving_size(height, width, 16, image_tokens * 9, 3)
            assert (rows * 48, columns * 48) == tuple(wanted), (height, width, image_tokens)
            assert image_tokens / 2 <= rows * columns <= image_tokens


def seen_by_them(image: Image.Image) -> np.ndarray:
    """What transformers makes of an opened picture before it resizes."""
    with quiet():
        from transformers.image_transforms import convert_to_rgb

        return np.array(convert_to_rgb(image))


def test_where_we_differ_on_purpose() -> None:
    """A photo that is held sideways, and grey of 16 bits."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = encoded(drawn(30, 20, 1), "PNG", exif=exif)
    assert seen_by_them(Image.open(io.BytesIO(photo))).shape == (20, 30, 3)
    assert picture_of(photo).pixels.shape == (30, 20, 3)
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    grey = encoded(Image.fromarray(ramp), "PNG")
    assert len(np.unique(seen_by_them(Image.open(io.BytesIO(grey))))) < 20
    assert np.array_equal(picture_of(grey).pixels[..., 0], ramp >> 8)
