"""Several tensors as one copy."""

from __future__ import annotations

import torch

from redraft.kernels.transfer import moved, packed, unpacked


def several() -> list[torch.Tensor]:
    """Of many dtypes and shapes, some empty, one not contiguous, narrow ones before wide ones."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.rand(3, generator=generator) > 0.5,
        torch.randn(2, 5, generator=generator).to(torch.bfloat16),
        torch.randn(7, 3, generator=generator, dtype=torch.float64).T,
        torch.zeros(4, 0),
        torch.randn((), generator=generator),
        torch.randint(-(2**62), 2**62, (5,), generator=generator),
        torch.full((1, 3), torch.nan),
    ]


def test_they_come_as_they_went():
    given = several()
    whole = packed(given)
    assert whole.dtype == torch.uint8
    assert len(whole) == sum(x.nbytes for x in given)
    for found, expected in zip(unpacked(whole, given), given, strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        torch.testing.assert_close(found, expected, atol=0, rtol=0, equal_nan=True)


def test_nothing_is_shared():
    given = several()
    found = moved(given, torch.device("cpu"))
    before = found[2].clone()
    given[2].fill_(0.0)
    assert torch.equal(found[2], before)


def test_nothing_at_all():
    assert moved([], torch.device("cpu")) == []
