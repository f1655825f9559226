"""Damaged pictures, whichever way: each is a picture or one error, and none takes more than its limits."""

from __future__ import annotations

import random

import pytest

from picture_files import KINDS, drawn, encoded
from redraft.core.errors import ImageError
from redraft.vision.files import Limits
from redraft.vision.picture import picture_of

LIMITS = Limits(nbytes=2**16, pixels=2**18, side=2**12)


def damaged(data: bytes, generator: random.Random, others: list[bytes]) -> bytes:
    """A file with a few things wrong in it."""
    made = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        if not made:
            break
        place = generator.randrange(len(made)) if generator.random() < 0.5 else generator.randrange(min(len(made), 80))
        length = generator.choice([1, 2, 4, 16])
        match generator.randrange(7):
            case 0:
                made[place] ^= 1 << generator.randrange(8)
            case 1:
                made[place : place + length] = generator.randbytes(length)
            case 2:
                del made[place : place + length]
            case 3:
                made[place:place] = generator.randbytes(length)
            case 4:
                del made[place:]
            case 5:
                made[place : place + length] = generator.choice([b"\0", b"\xff", b"\x7f"]) * length
            case _:
                made[place:] = generator.choice(others)[place:]
    return bytes(made)


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.full)])
def test_damaged_files(count: int) -> None:
    generator = random.Random(count)
    whole = [encoded(drawn(23, 17, 1, mode), format, **options) for format, mode, options in KINDS]
    seen, errors = [], []
    for number in range(count):
        data = damaged(whole[number % len(whole)], generator, whole)
        try:
            picture = picture_of(data, limits=LIMITS, where="a")
        except ImageError as error:
            errors.append(str(error))
        else:
            seen.append(picture.pixels.shape)
    assert all(error.startswith("a: ") and len(error.splitlines()) == 1 for error in errors)
    assert all(colours == 3 and 1 <= height * width <= LIMITS.pixels for height, width, colours in seen)
    # Neither is everything refused, nor nothing.
    assert min(len(seen), len(errors)) > count // 10
