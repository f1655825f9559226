"""The end of a step in one launch, and its rotary tables, in Triton's interpreter, against the torch forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.kernels.head import HeadStats
    from redraft.kernels.triton.rotary import rotary_triton
    from redraft.model.rope import inverse_frequencies, rotary
    from redraft.sampler import advance
    from redraft.sampler.advance import Canvases

interpreted = loop_bounds
STEPS, VOCABULARY = 4, 50


def canvases(batch, length, threshold, generator):
    found = Canvases.empty(batch, length, threshold, STEPS, torch.device("cpu"))
    found.noise.random_(0, VOCABULARY, generator=generator)
    found.uniforms.uniform_(generator=generator)
    found.temperatures.uniform_(generator=generator)
    found.place.random_(0, STEPS, generator=generator)
    found.bound.uniform_(0, 2, generator=generator)
    found.confidence.uniform_(0, 2, generator=generator)
    return found


def stats(batch, length, generator, entropy=None):
    if entropy is None:
        # Few values, so that many are equal; sums of these are exact in any order.
        entropy = torch.randint(0, 6, (batch, length), generator=generator) / 8
    argmax, sample = torch.randint(0, VOCABULARY, (2, batch, length), generator=generator).unbind(0)
    zero = torch.zeros(batch, length)
    return HeadStats(
        argmax=argmax, sample=sample, entropy=entropy, log_prob=zero, soft_embedding=zero, dropped_mass=zero
    )


def copied(found):
    return Canvases(**{name: tensor.clone() for name, tensor in vars(found).items()})


@pytest.fixture
def launched(monkeypatch):
    """The Triton form of a step's end."""

    def end(found, given):
        with monkeypatch.context() as patch:
            patch.setattr(advance, "on_gpu", lambda *_: True)
            patch.setattr(advance, "attempt", lambda name, fast, reference: fast())
            found.advance(given)

    return end


def assert_same(found, expected):
    for name, tensor in vars(expected).items():
        # Means are sums in another order.
        torch.testing.assert_close(
            getattr(found, name), tensor, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("threshold", [0, 1, 3])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (2, 7), (3, 48), (1, 256), (2, 300)])
def test_a_step_ends_as_in_torch(launched, batch, length, threshold):
    generator = torch.Generator().manual_seed(length + threshold)
    meant = canvases(batch, length, threshold, generator)
    found = copied(meant)
    for _ in range(5):
        given = stats(batch, length, generator)
        meant.advance(given)
        launched(found, given)
        assert_same(found, meant)


def test_a_canvas_settles_when_it_stands_and_is_sure(launched):
    generator = torch.Generator().manual_seed(0)
    found = canvases(2, 12, 2, generator)
    found.confidence.copy_(torch.tensor([1.0, 0.01]))
    given = stats(2, 12, generator)
    settled = []
    for _ in range(4):
        launched(found, given)
        settled.append(found.verdict[0].bool().tolist())
    assert settled == [[False, False], [False, False], [True, False], [True, False]]
    other = stats(2, 12, generator, given.entropy)
    launched(found, other)
    assert not found.verdict[0].any()


def test_the_surest_is_taken_however_unsure(launched):
    generator = torch.Generator().manual_seed(0)
    found = canvases(1, 9, 1, generator)
    launched(found, stats(1, 9, generator, torch.linspace(500, 400, 9)[None]))
    assert found.accepted.tolist() == [[False] * 8 + [True]]
    launched(found, stats(1, 9, generator, torch.full((1, 9), 300.0)))
    assert found.accepted.tolist() == [[True] + [False] * 8], "of equal ones the first"


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_is_said(launched, broken):
    generator = torch.Generator().manual_seed(0)
    found = canvases(2, 9, 1, generator)
    entropy = torch.rand(2, 9, generator=generator)
    entropy[1, 4] = broken
    with np.errstate(invalid="ignore"):
        launched(found, stats(2, 9, generator, entropy))
    assert found.verdict[1].tolist() == [1.0, 0.0]
    assert ((found.tokens >= 0) & (found.tokens < VOCABULARY)).all()


def test_a_step_begins_with_its_own_draws(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    for batch, length in ((1, 1), (3, 48), (2, 1500)):
        found = canvases(batch, length, 1, generator)
        expected = found.draws()
        with monkeypatch.context() as patch:
            patch.setattr(advance, "on_gpu", lambda *_: True)
            patch.setattr(advance, "attempt", lambda name, fast, reference: fast())
            for one, other in zip(found.draws(), expected, strict=True):
                assert torch.equal(one, other)


def test_a_canvas_that_is_too_long_is_torchs(launched):
    generator = torch.Generator().manual_seed(0)
    meant = canvases(1, 1100, 1, generator)
    found, given = copied(meant), stats(1, 1100, generator)
    meant.advance(given)
    launched(found, given)
    assert_same(found, meant)


@pytest.mark.parametrize(("theta", "factor", "size"), [(1e4, 1.0, 16), (1e6, 0.25, 512), (1e4, 1.0, 12)])
def test_rotary_tables(theta, factor, size):
    frequencies = inverse_frequencies(theta, factor, size)
    positions = torch.tensor([[0, 1, 2, 1023], [5, 262_144, 99_999, 7]])
    for found, expected in zip(
        rotary_triton(positions, frequencies, torch.float32), rotary(positions, frequencies, torch.float32), strict=True
    ):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
