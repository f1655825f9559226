"""Pictures of one request: where they stand among its ids, and what tells prompts apart that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from redraft.model.images import Placed, Reading

# n soft tokens of one picture, D width of the text model


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptImage:
    """One picture in a prompt.

    Attributes:
        start: place of its first placeholder among the prompt's ids.
        tokens: how many placeholders it has.
        pixels: [3, H, W] at the size that the tower takes: all that its soft tokens depend on.
        digest: of the picture as it was given, and of its budget.
        reading: who sees whom inside it.
    """

    start: int
    tokens: int
    pixels: UInt8[np.ndarray, "3 H W"]
    digest: bytes
    reading: Reading

    @property
    def end(self) -> int:
        """Behind its last placeholder."""
        return self.start + self.tokens

    @property
    def key(self) -> int:
        """A number that no id has, and no other picture, budget or reading."""
        return -1 - int.from_bytes(hashlib.sha256(self.digest + self.reading.encode()).digest())


SoftTokens = Callable[[PromptImage], Float[Tensor, "n D"]]


def identity(ids: list[int], images: Iterable[PromptImage]) -> list[int]:
    """What tells prompts apart: their ids, and in the place of each picture's first the picture's own number.

    Placeholders alone say how long a picture is, and not which.
    """
    found = ids
    for image in images:
        if image.end <= len(ids):
            found = [*ids] if found is ids else found
            found[image.start] = image.key
    return found


def runs_of(images: Iterable[PromptImage], length: int) -> list[tuple[int, int]]:
    """(first, behind the last) of the pictures within the first `length` ids."""
    return [(image.start, image.end) for image in images if image.end <= length]


def placed(images: Rows[PromptImage], start: int, end: int, soft: SoftTokens | None) -> list[Placed]:
    """The pictures between two places of a prompt, for those ids alone.

    Raises:
        ValueError: one of them is cut.
    """
    found = []
    for image in images:
        if image.end <= start or image.start >= end:
            continue
        if not start <= image.start < image.end <= end:
            raise ValueError(f"a piece from {start} to {end} cuts the picture from {image.start} to {image.end}")
        assert soft is not None, "whoever admits pictures can see"
        found.append(Placed(start=image.start - start, soft=soft(image)))
    return found
