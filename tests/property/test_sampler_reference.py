"""The sampler's pure functions against transformers' classes, on the same inputs."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from checkpoints import quiet
from redraft.sampler.accept import accept, renoise
from redraft.sampler.schedule import temperature
from redraft.sampler.stop import new_history, remember, stable_and_confident

with quiet():
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
        EntropyBoundSampler,
        EntropyBoundSamplerConfig,
        LinearTemperatureScheduleLogitsProcessor,
        StableAndConfidentStoppingCriteria,
    )

EXAMPLES = 1000 if os.environ.get("REDRAFT_FULL_TESTS") else 60
CPU = torch.device("cpu")

sampled = settings(max_examples=EXAMPLES, deadline=None)
seeds = st.integers(0, 2**32 - 1)
bounds = st.one_of(st.floats(1e-6, 50.0), st.just(1e9))


def logits_of(seed: int, rows: int, length: int, vocab: int, scale: float) -> Tensor:
    """Logits whose positions run from nearly certain to nearly uniform."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = scale * torch.rand(rows, length, 1, generator=generator) ** 2
    return sharpness * torch.randn(rows, length, vocab, generator=generator)


def entropy_of(logits: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=logits).entropy()


def reference_sampler(bound: float, length: int, vocab: int) -> EntropyBoundSampler:
    return EntropyBoundSampler(EntropyBoundSamplerConfig(bound), length, vocab, max_denoising_steps=1)


@sampled
@given(
    steps=st.integers(1, 100),
    data=st.data(),
    t_min=st.floats(0.01, 2.0),
    width=st.floats(0.0, 2.0),
)
def test_temperature(steps: int, data: st.DataObject, t_min: float, width: float) -> None:
    step = data.draw(st.integers(0, steps - 1))
    cur_step = torch.tensor(steps - step, dtype=torch.int32)  # what generate hands over
    scores = torch.linspace(-30, 30, 7)
    reference = LinearTemperatureScheduleLogitsProcessor(t_min, t_min + width, steps)
    ours = scores / temperature(step, steps, t_min + width, t_min)
    torch.testing.assert_close(ours, reference(None, scores, cur_step=cur_step), rtol=1e-6, atol=0)


def test_temperature_at_the_ends() -> None:
    assert temperature(0, 48, 0.8, 0.4) == pytest.approx(0.8)
    assert temperature(47, 48, 0.8, 0.4) == pytest.approx(0.4 + 0.4 / 48)
    assert temperature(3, 48, 0.0, 0.0) == 0.0


@sampled
@given(
    seed=seeds,
    rows=st.integers(1, 3),
    length=st.integers(1, 40),
    vocab=st.integers(2, 30),
    scale=st.floats(0.0, 60.0),
    bound=bounds,
)
def test_accept_and_renoise(seed: int, rows: int, length: int, vocab: int, scale: float, bound: float) -> None:
    logits = logits_of(seed, rows, length, vocab, scale)
    generator = torch.Generator().manual_seed(seed)
    canvas, sample, noise = torch.randint(0, vocab, (3, rows, length), generator=generator)

    theirs = reference_sampler(bound, length, vocab)
    theirs.initialize_canvas = lambda batch_size, device: noise
    accepted_canvas = theirs.accept_canvas(canvas, sample, logits, cur_step=1)

    entropy = entropy_of(logits)
    accepted = accept(entropy, bound)
    if all(row.unique().numel() == length for row in entropy):
        assert torch.equal(accepted, theirs.accepted_token_mask)
        assert torch.equal(renoise(accepted, sample, noise), theirs.renoise_canvas(accepted_canvas, cur_step=1))
    else:  # the reference does not say which of two equal entropies comes first
        assert torch.equal(accepted.sum(-1), theirs.accepted_token_mask.sum(-1))
        assert torch.equal(
            torch.where(accepted, entropy, 0).sort(-1).values,
            torch.where(theirs.accepted_token_mask, entropy, 0).sort(-1).values,
        )
    assert accepted.any(-1).all(), "a step always takes at least one token"


@sampled
@given(seed=seeds, length=st.integers(2, 40), data=st.data())
def test_accept_where_the_sum_meets_the_bound_exactly(seed: int, length: int, data: st.DataObject) -> None:
    logits = logits_of(seed, 1, length, 11, 20.0)
    entropy = entropy_of(logits)
    ascending = entropy.sort(-1).values
    before = (ascending.cumsum(-1) - ascending)[0, data.draw(st.integers(1, length - 1))].item()
    bound = max(before, 1e-30)
    theirs = reference_sampler(bound, length, 11)
    canvas = torch.zeros(1, length, dtype=torch.long)
    theirs.accept_canvas(canvas, canvas, logits, cur_step=1)
    assert torch.equal(accept(entropy, bound).sum(-1), theirs.accepted_token_mask.sum(-1))


@sampled
@given(seed=seeds, length=st.integers(1, 40), bound=bounds)
def test_accept_in_a_batch_with_a_bound_for_each_row(seed: int, length: int, bound: float) -> None:
    entropy = entropy_of(logits_of(seed, 3, length, 11, 20.0))
    column = torch.tensor([[bound], [0.1], [1e9]])
    together = accept(entropy, column)
    for row in range(3):
        assert torch.equal(together[row : row + 1], accept(entropy[row : row + 1], float(column[row])))


@sampled
@given(
    seed=seeds,
    threshold=st.integers(0, 3),
    confidence=st.floats(1e-4, 2.0),
    rows=st.integers(1, 3),
    length=st.integers(1, 3),
    steps=st.integers(1, 12),
    persistence=st.floats(0.3, 1.0),
)
def test_stop_over_whole_canvases(
    seed: int, threshold: int, confidence: float, rows: int, length: int, steps: int, persistence: float
) -> None:
    """Two canvases in a row; each step keeps a position's token with probability `persistence`."""
    generator = torch.Generator().manual_seed(seed)
    theirs = StableAndConfidentStoppingCriteria(threshold, confidence)
    argmax = torch.zeros(rows, length, dtype=torch.long)
    for canvas in range(2):
        theirs.reset()
        history = new_history(threshold, rows, length, CPU)
        for step in range(steps):
            kept = torch.rand(rows, length, generator=generator) < persistence
            argmax = torch.where(kept, argmax, torch.randint(0, 4, (rows, length), generator=generator))
            logits = logits_of(seed + 100 * canvas + step, rows, length, 5, 40.0)
            ours = stable_and_confident(history, argmax, entropy_of(logits), confidence)
            history = remember(history, argmax)
            assert torch.equal(ours, theirs(argmax, logits)), (canvas, step)


@pytest.mark.parametrize("threshold", [0, 1, 2, 3])
def test_a_canvas_that_never_moves_stops_after_threshold_steps(threshold: int) -> None:
    """Zeros too: id 0 must not count as seen in an empty history."""
    argmax, entropy = torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4)
    history, verdicts = new_history(threshold, 1, 4, CPU), []
    for _ in range(5):
        verdicts.append(bool(stable_and_confident(history, argmax, entropy, 0.005)))
        history = remember(history, argmax)
    assert verdicts == [step >= threshold for step in range(5)]
