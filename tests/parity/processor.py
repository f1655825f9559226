"""Prints what transformers' processor of Gemma 4, in its form on torchvision, makes of one in so many of
`picture_files.cases`: a digest of each one's patches and places, as JSON.

A process of its own, with a torchvision that stands apart from other packages: the published one is built for another
torch, whose operators it misses, and transformers cannot be imported beside it. What resizes pictures is Python around
torch's own interpolation, and needs none of those.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch

APART = Path(sys.prefix) / "apart"


def digest(values: torch.Tensor, places: torch.Tensor) -> str:
    """Of one picture's patches without padding."""
    whole = np.ascontiguousarray(values.numpy()).tobytes() + places.to(torch.int64).numpy().tobytes()
    return f"{values.shape[0]} {hashlib.sha256(whole).hexdigest()}"


def main() -> None:
    sys.path[:0] = [str(APART), str(Path(__file__).parents[1])]
    # It describes the operators that are missing.
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
    torch.set_num_threads(1)
    from PIL import Image
    from transformers import Gemma4ImageProcessor

    from picture_files import cases

    processor, found = Gemma4ImageProcessor(), {}
    for case in cases(int(sys.argv[1])):
        image = Image.open(io.BytesIO(case.data))
        made = processor(images=[image], return_tensors="pt", max_soft_tokens=case.image_tokens)
        count = int(made["num_soft_tokens_per_image"][0]) * 9
        found[case.name] = digest(made["pixel_values"][0, :count], made["image_position_ids"][0, :count])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
