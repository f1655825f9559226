"""The generator against its published vectors, and what its draws look like."""

from __future__ import annotations

import pytest
import torch

from redraft.sampler.noise import Stream, as_int64, philox, token_ids, uniform

# Known answers of Philox4x32-10 from the Random123 distribution.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    words = philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(int(word) for word in words) == expected


def rows(*values):
    return torch.tensor(values)


def draw(seed=7, stream=Stream.SAMPLE, canvas=0, step=0, length=512):
    return uniform(rows(as_int64(seed)), stream, rows(canvas), rows(step), length)[0]


def test_every_coordinate_matters():
    draws = [
        draw(),
        draw(seed=8),
        draw(seed=7 + 2**32),
        draw(seed=2**64 - 1),
        draw(canvas=1),
        draw(step=1),
        *(draw(stream=stream) for stream in Stream if stream is not Stream.SAMPLE),
    ]
    for i, first in enumerate(draws):
        for second in draws[:i]:
            assert (first == second).sum() < 5
    assert torch.equal(draw(), draw())


def test_a_row_does_not_depend_on_its_company():
    together = uniform(rows(1, 2, 3), Stream.RENOISE, rows(0, 4, 1), rows(9, 0, 2), 64)
    alone = uniform(rows(2), Stream.RENOISE, rows(4), rows(0), 64)
    assert torch.equal(together[1:2], alone)
    longer = uniform(rows(2), Stream.RENOISE, rows(4), rows(0), 100)
    assert torch.equal(longer[:, :64], alone)


def test_uniform_is_open_and_even():
    draws = draw(length=200_000)
    assert float(draws.min()) > 0
    assert float(draws.max()) < 1
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(draws.var()) == pytest.approx(1 / 12, abs=0.002)


@pytest.mark.parametrize("vocab_size", [1, 7, 199, 262_144])
def test_token_ids_cover_the_vocabulary_evenly(vocab_size):
    ids = token_ids(rows(3), Stream.START, rows(0), rows(0), 100_000, vocab_size)[0]
    assert int(ids.min()) >= 0
    assert int(ids.max()) < vocab_size
    if vocab_size < 1000:
        counts = torch.bincount(ids, minlength=vocab_size).double()
        expected = len(ids) / vocab_size
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        # Mean V - 1, deviation sqrt(2 (V - 1)): six deviations out means a broken generator.
        assert chi_square <= (vocab_size - 1) + 6 * (2 * (vocab_size - 1)) ** 0.5


def test_the_largest_draw_is_below_one(monkeypatch):
    from redraft.sampler import noise

    monkeypatch.setattr(noise, "words", lambda *_: torch.tensor([[0, 2**32 - 1]]))
    low, high = draw(length=2).tolist()
    assert 0 < low < high < 1
    assert high == 1 - low
