"""The head's soft embedding out of lists of likely tokens, in Triton's interpreter: and only where they suffice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows
    from redraft.kernels.triton import head as fast_head
    from redraft.kernels.triton.head import HeadConfig, head_triton

interpreted = loop_bounds
CAP, SCALE, BOUND = 30.0, 6.5, 2.0**-11
SMALL = HeadConfig(
    rows=16, columns=16, depth=16, width=16, warps=4, stages=1, soft_stages=1, parts=2, lists=2, places=16, together=2,
    bound=BOUND,
)  # fmt: skip


def inputs(rows, vocabulary=200, width=64, peak=12.0):
    """Hidden states near embeddings of two tokens, which are likely; all others together are not."""
    generator = torch.Generator().manual_seed(rows)
    embedding = torch.nn.functional.normalize(torch.randn(vocabulary, width, generator=generator), dim=-1)
    near = torch.randint(0, vocabulary, (2, rows), generator=generator)
    hidden = peak * (embedding[near[0]] + 0.9 * embedding[near[1]])
    return hidden, embedding, torch.rand(rows, generator=generator) * 0.1 + 0.4, torch.rand(rows, generator=generator)


def run(hidden, embedding, temperature, uniform, config=SMALL):
    scale = torch.tensor(SCALE)
    return head_triton(
        hidden, embedding, cap=CAP, embed_scale=scale, temperature_N=temperature, uniform_N=uniform, config=config
    )  # fmt: skip


def exact(hidden, embedding, temperature):
    logits = torch.tanh(hidden.double() @ embedding.double().T / CAP) * CAP
    return (logits / temperature.double()[:, None]).softmax(-1)


def check(found, probabilities, embedding, rows=slice(None), bound=BOUND):
    expected = probabilities @ embedding.double() * SCALE
    assert (found.dropped_mass[rows] <= bound).all()
    largest = embedding.norm(dim=-1).max() * SCALE
    error = (found.soft_embedding.double() - expected).norm(dim=-1)[rows]
    # What is missing, and what rounding adds.
    assert (error <= largest * (found.dropped_mass[rows].double() + 1e-5)).all()


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("rows", [1, 19])
def test_likely_tokens_alone_are_summed(rows, integer):
    hidden, embedding, temperature, uniform = inputs(rows)
    if integer:
        matrix, (values, scale) = Int8Matrix.of(embedding), quantise_rows(hidden)
        found = run(hidden, matrix, temperature, uniform)
        hidden, embedding = values * scale[:, None], matrix.dequantised()
    else:
        found = run(hidden, embedding, temperature, uniform)
    assert (found.dropped_mass > 0).all(), "some mass is always missing in a list"
    check(found, exact(hidden, embedding, temperature), embedding)


def test_flat_rows_beside_them_are_multiplied():
    hidden, embedding, temperature, uniform = inputs(20)
    hidden[::3] = 0.01 * hidden[::3]
    found = run(hidden, embedding, temperature, uniform)
    flat = torch.zeros(20, dtype=torch.bool)
    flat[::3] = True
    assert (found.dropped_mass[~flat] > 0).all()
    assert (found.dropped_mass[flat] == 0).all()
    check(found, exact(hidden, embedding, temperature), embedding)


def test_a_flat_row_is_given_up_at_once(monkeypatch):
    """What its lists would count takes a pass over the vocabulary, and is for nothing."""
    hidden, embedding, temperature, uniform = inputs(8, vocabulary=1000)
    hidden[:4] = 0
    launch, counts = fast_head.launch, []

    def watched(kernel, grid, *arguments, **options):
        launch(kernel, grid, *arguments, **options)
        if kernel is fast_head.select_kernel:
            counts.append(arguments[8].clone())

    monkeypatch.setattr(fast_head, "launch", watched)
    found = run(hidden, embedding, temperature, uniform)
    flat, sure = counts[0].split(4)
    assert (flat > SMALL.places).all()
    assert (flat <= SMALL.places + SMALL.together * SMALL.columns).all()
    assert (found.dropped_mass[:4] == 0).all()
    assert (sure <= SMALL.places).all()
    check(found, exact(hidden, embedding, temperature), embedding)


def test_lists_that_are_too_short_are_not_used():
    hidden, embedding, temperature, uniform = inputs(9, peak=4.0)
    found = run(hidden, embedding, temperature, uniform)
    short = run(hidden, embedding, temperature, uniform, replace(SMALL, places=8, bound=0.9))
    probabilities = exact(hidden, embedding, temperature)
    far = (probabilities >= probabilities.amax(-1, keepdim=True) * torch.e**-10).sum(-1)
    assert (far > 16).all(), "more than both lists hold"
    assert (short.dropped_mass == 0).all()
    for each in (found, short):
        check(each, probabilities, embedding)


def test_a_small_bound_keeps_all_of_it():
    hidden, embedding, temperature, uniform = inputs(9)
    found = run(hidden, embedding, temperature, uniform, replace(SMALL, bound=None))
    check(found, exact(hidden, embedding, temperature), embedding, bound=2.0**-24)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_row_that_is_not_finite_leaves_the_others_alone():
    hidden, embedding, temperature, uniform = inputs(9)
    hidden[4] = float("nan")
    found = run(hidden, embedding, temperature, uniform)
    others = [row for row in range(9) if row != 4]
    assert found.entropy[4].isnan()
    assert 0 <= int(found.argmax[4]) < len(embedding)
    assert found.soft_embedding[4].isnan().all()
    check(found, exact(hidden, embedding, temperature), embedding, others)


def test_where_all_rows_have_lists_nothing_is_multiplied(monkeypatch):
    hidden, embedding, temperature, uniform = inputs(9)
    temperature[2] = 0
    launch, products = fast_head.launch, []

    def watched(kernel, grid, *arguments, **options):
        if kernel is fast_head.soft_kernel:
            partial = arguments[5].fill_(7.0)
            launch(kernel, grid, *arguments, **options)
            products.append(bool((partial != 7.0).any()))
        else:
            launch(kernel, grid, *arguments, **options)

    monkeypatch.setattr(fast_head, "launch", watched)
    found = run(hidden, embedding, temperature, uniform)
    temperature[2] = 1e-3
    check(found, exact(hidden, embedding, temperature), embedding)
    hidden[5] *= 0.01
    found = run(hidden, embedding, temperature, uniform)
    check(found, exact(hidden, embedding, temperature), embedding)
    assert products == [False, True], found.dropped_mass
