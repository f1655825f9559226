"""From files to patches against transformers' own processor, bit for bit."""

from __future__ import annotations

import io
import json
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

CONFIG = VisionConfig.from_dict({"vision_config": {}}, text_hidden_size=64)


def test_patches_equal_the_processor_s_bit_for_bit() -> None:
    if not APART.exists():
        pytest.skip(f"no torchvision in {APART}: make test puts one there")
    script = Path(__file__).with_name("processor.py")
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout)
    assert len(theirs) == 200
    ours = {}
    for case in cases():
        patches = patches_of(picture_of(case.data).pixels, CONFIG, case.image_tokens)
        ours[case.name] = digest(patches.values, patches.places)
    assert [name for name in theirs if ours[name] != theirs[name]] == []


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
