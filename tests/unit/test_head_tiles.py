"""The tiled head of CPUs, in C++ and in torch, against its reference and against float64."""

from __future__ import annotations

import math

import pytest
import torch

from redraft.kernels import head_tiles as tiles
from redraft.kernels.head import head, head_reference
from redraft.kernels.matrices.int8 import Int8Matrix, quantise_rows

CAP, SCALE, WIDTH, V, D = 30.0, 4.0, 128, 300, 16
KINDS = [torch.float32, torch.bfloat16, torch.int8]
LOW, HIGH = 0.5 * 2.0**-23, 1 - 2.0**-24


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles with a ragged last one, and several passes over rows, out of small inputs."""
    monkeypatch.setattr(tiles, "TILE_COLUMNS", dict.fromkeys(KINDS, WIDTH))
    monkeypatch.setattr(tiles, "MAX_ROWS", 150)


@pytest.fixture(params=["native", "torch"])
def form(request, monkeypatch):
    choose(monkeypatch, request.param)


def choose(monkeypatch, name):
    if name == "torch":
        monkeypatch.setattr(tiles, "library", lambda _: None)
    elif tiles.library("head") is None:
        pytest.skip("no compiler")


def inputs(rows=9, vocabulary=V, scale=1.0):
    generator = torch.Generator().manual_seed(rows + vocabulary)
    hidden = torch.randn(rows, D, generator=generator) * scale
    embedding = torch.randn(vocabulary, D, generator=generator)
    temperature = torch.rand(rows, generator=generator) + 0.3
    return hidden, embedding, temperature, torch.rand(rows, generator=generator)


def narrow(kind, hidden, embedding):
    """Hidden states and embedding as the head gets them, then the float32 values that they stand for."""
    if kind != torch.int8:
        hidden, embedding = hidden.to(kind), embedding.to(kind)
        return hidden, embedding, hidden.float(), embedding.float()
    matrix, (rows, scale) = Int8Matrix.of(embedding), quantise_rows(hidden)
    return hidden, matrix, rows * scale[:, None], matrix.dequantised()


def run(hidden, embedding, temperature, uniform, function=head):
    options = {"cap": CAP, "embed_scale": torch.tensor(SCALE), "temperature_N": temperature, "uniform_N": uniform}
    return function(hidden, embedding, **options)


def exact(hidden, embedding, temperature):
    """(log-probabilities in float64, nats by which float32 may move a scaled logit: units in its last place, or in that
    of what its product is a small sum of, as far as the cap lets it through)."""
    capped = torch.tanh(hidden.double() @ embedding.double().T / CAP)
    summed = hidden.double().abs() @ embedding.double().abs().T
    logits, moved = (x / temperature.double()[:, None] for x in (capped * CAP, summed * (1 - capped.square())))
    return logits.log_softmax(-1), (logits.abs() * 2.0**-20 + moved * 2.0**-22).amax(-1)


def check(stats, log_probs, noise, embedding, uniform, soft_error=0.0):
    """All results, if no scaled logit of row n is off by more than noise[n]: a log-probability moves by twice that."""
    # The sums are float32 as well.
    probs, slack = log_probs.exp(), 2 * noise + 3e-6
    best, chosen = (log_probs.gather(1, x[:, None])[:, 0] for x in (stats.argmax, stats.sample))
    assert (log_probs.amax(-1) - best <= slack).all()
    assert ((stats.log_prob.double() - chosen).abs() <= slack).all()
    assert ((stats.best_log_prob.double() - best).abs() <= slack).all()
    assert float(stats.best_log_prob.max()) <= 0
    # The derivative of the entropy by a logit is -p (log p + entropy).
    entropy = -(probs * log_probs).sum(-1)
    spread = (probs * (log_probs + entropy[:, None]).abs()).sum(-1)
    assert ((stats.entropy.double() - entropy).abs() <= slack * (1 + spread)).all()
    difference = (stats.soft_embedding.double() / SCALE - probs @ embedding.double()).abs()
    assert (difference <= slack[:, None] * (probs @ embedding.double().abs()) + soft_error).all()
    end = probs.cumsum(-1).gather(1, stats.sample[:, None])[:, 0]
    assert (end - chosen.exp() - slack <= uniform.double()).all()
    assert (uniform.double() <= end + slack).all()


@pytest.mark.parametrize("scale", [0.0, 0.05, 1.0, 300.0])
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 1), (7, 1), (1, V), (9, 53), (9, 64), (9, 129), (301, V)])
def test_against_float64(form, rows, vocabulary, scale):
    hidden, embedding, temperature, uniform = inputs(rows, vocabulary, scale)
    stats = run(hidden, embedding, temperature, uniform)
    check(stats, *exact(hidden, embedding, temperature), embedding, uniform)
    assert float(stats.entropy.min()) >= 0
    assert float(stats.dropped_mass.max()) <= 1e-6


@pytest.mark.parametrize("threads", [1, 3])
def test_against_the_reference(form, threads):
    torch.set_num_threads(threads)
    given = inputs(rows=400)
    stats, reference = run(*given), run(*given, function=head_reference)
    assert torch.equal(stats.argmax, reference.argmax)
    for name in ("entropy", "soft_embedding"):
        torch.testing.assert_close(getattr(stats, name), getattr(reference, name), atol=1e-4, rtol=1e-4)
    # Where the draw falls on the border of two tokens, to float32, either of them is right.
    border = (exact(*given[:3])[0].exp().cumsum(-1) - given[3][:, None].double()).abs().amin(-1)
    clear = border > 1e-6
    assert int(clear.sum()) > 390
    assert torch.equal(stats.sample[clear], reference.sample[clear])
    torch.testing.assert_close(stats.log_prob[clear], reference.log_prob[clear], atol=1e-4, rtol=0)
    torch.testing.assert_close(stats.best_log_prob, reference.best_log_prob, atol=1e-4, rtol=0)
    assert len(stats.sample.unique()) > 50


@pytest.mark.parametrize("uniform", [LOW, HIGH])
@pytest.mark.parametrize(("temperature", "vocabulary"), [(1e-3, V), (0.05, V), (0.4, V), (1.0, V), (5.0, 53)])
def test_the_outermost_draws_mean_tokens_of_positive_probability(form, temperature, vocabulary, uniform):
    hidden, embedding, _, _ = inputs(200, vocabulary, scale=5.0)
    temperatures, draws = torch.full((200,), temperature), torch.full((200,), uniform)
    stats = run(hidden, embedding, temperatures, draws)
    log_probs, noise = exact(hidden, embedding, temperatures)
    assert float(log_probs.gather(1, stats.sample[:, None]).min()) > math.log(1e-25)
    check(stats, log_probs, noise, embedding, draws)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_are_the_flat_distribution(form, kind):
    _, embedding, temperature, uniform = inputs(rows=200)
    hidden, weight, *_ = narrow(kind, torch.zeros(200, D), embedding)
    stats = run(hidden, weight, temperature, uniform)
    assert torch.allclose(stats.entropy, torch.tensor(math.log(V)), atol=1e-5)
    assert torch.allclose(stats.log_prob, torch.tensor(-math.log(V)), atol=1e-5)
    assert not stats.argmax.any()
    assert ((stats.sample - uniform * V).abs() <= 1).all()
    mean = (embedding.mean(0) * SCALE).expand(200, -1)
    assert torch.allclose(stats.soft_embedding.float(), mean, atol=1e-5 if kind == torch.float32 else 1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spike", [0, 127, 128, 299])
def test_a_huge_logit_takes_all(form, spike, kind):
    _, embedding, _, _ = inputs()
    embedding[:, 0] = torch.where(torch.arange(V) == spike, 1.0, -1.0)
    hidden, weight, _, values = narrow(kind, torch.eye(1, D).expand(3, -1) * 64.0, embedding)
    stats = run(hidden, weight, torch.full((3,), 0.5), torch.tensor([LOW, 0.5, HIGH]))
    assert stats.argmax.tolist() == stats.sample.tolist() == [spike] * 3
    assert float(stats.entropy.max()) < 1e-6
    assert float(stats.log_prob.abs().max()) < 1e-4
    expected = (values[spike] * SCALE).expand(3, -1)
    torch.testing.assert_close(stats.soft_embedding.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", ["rising", "falling", "hill"])
def test_mass_is_carried_from_tile_to_tile(form, shape):
    """Every tile keeps some of the mass, whichever tile the largest logit is in."""
    hidden, embedding, temperature, uniform = inputs()
    ramp = torch.linspace(0, 6, V)
    embedding[:, 0] = {"rising": ramp, "falling": ramp.flip(0), "hill": 6 - (ramp - 3).abs()}[shape]
    hidden[:, 0] = 1.0
    stats = run(hidden, embedding, temperature, uniform)
    check(stats, *exact(hidden, embedding, temperature), embedding, uniform)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 1e-3])
@pytest.mark.parametrize("size", [1e30, -1e30, math.inf])
def test_saturated_logits_tie_at_the_cap(form, size, temperature):
    _, embedding, _, uniform = inputs(rows=40)
    hidden = torch.zeros(40, D)
    hidden[:, 0] = size
    at_cap = (embedding[:, 0] * size > 0).nonzero()[:, 0]
    stats = run(hidden, embedding, torch.full((40,), temperature), uniform)
    assert (stats.argmax == at_cap[0]).all()
    assert torch.isin(stats.sample, at_cap).all()
    expected = torch.tensor(math.log(len(at_cap)))
    assert torch.allclose(stats.entropy, expected, atol=1e-5)
    assert torch.allclose(stats.log_prob, -expected, atol=2.0**-20 * CAP / temperature + 1e-5)
    assert torch.allclose(stats.soft_embedding, embedding[at_cap].mean(0) * SCALE, atol=1e-5)


def test_cold_and_zero_temperatures_mix_with_others(form):
    hidden, embedding, temperature, uniform = inputs(rows=12)
    temperature[::3], temperature[1::3] = 0.0, 1e-3
    stats, zero = run(hidden, embedding, temperature, uniform), temperature == 0
    assert torch.equal(stats.sample[zero], stats.argmax[zero])
    assert torch.equal(stats.soft_embedding[zero], embedding[stats.argmax[zero]] * SCALE)
    for name in ("entropy", "log_prob", "best_log_prob", "dropped_mass"):
        assert not getattr(stats, name)[zero].any()
    limit = temperature.clamp(min=1e-3)
    check(stats, *exact(hidden, embedding, limit), embedding, uniform)


def peaked(gap, rising, near):
    """Rows whose three peaks, in as many tiles of 512, stand about `gap` nats above all else; column 0 of E is 1.

    Blocks with a peak hold nothing lighter than `near` nats below one.
    """
    embedding, peaks = inputs(vocabulary=2000)[1], torch.tensor([5, 700, 1900])
    embedding[:, 0], embedding[:, 1] = 1.0, 0.0
    blocks = peaks[:, None] // tiles.BLOCK * tiles.BLOCK + torch.arange(tiles.BLOCK)
    embedding[blocks, 1] = 1 - near / gap
    embedding[peaks, 1] = torch.tensor([1.0, 1.0 + rising, 1.0 + 2 * rising])
    hidden = torch.zeros(6, D)
    hidden[:, 0], hidden[:, 1] = -0.4 * gap, 0.8 * gap
    hidden[:, 2] = torch.linspace(-0.01, 0.01, 6)
    return hidden, embedding, torch.full((6,), 0.8), torch.linspace(0.1, 0.9, 6)


def soft_of(given, bound):
    """(what `head_tiles` finds, the soft embedding in float64)."""
    hidden, embedding, temperature, uniform = given
    options = {"cap": CAP, "temperature_N": temperature, "uniform_N": uniform, "mass_bound": bound}
    return tiles.head_tiles(hidden, embedding, **options), exact(*given[:3])[0].exp() @ embedding.double()


@pytest.mark.parametrize(("bound", "gap"), [(1e-2, 17.0), (1e-1, 15.0)])
@pytest.mark.parametrize("rising", [0.0, 0.03, -0.03])
def test_what_is_left_out_is_counted_and_bounded(form, monkeypatch, rising, bound, gap):
    monkeypatch.setattr(tiles, "TILE_COLUMNS", {torch.float32: 512})
    # 20 times the share of a column: 189 of them, left out, would be twice the bound.
    given = peaked(gap, rising, near=-math.log(3 * 20 * bound / 2000))
    found, expected = soft_of(given, bound)
    assert float(found.dropped.min()) > 1e-5
    assert float(found.dropped.max()) <= bound
    # Column 0 is the kept mass; both are float32 sums.
    torch.testing.assert_close(found.soft[:, 0], 1 - found.dropped, atol=1e-6, rtol=0)
    difference = (found.soft - expected).abs().amax(-1)
    assert (difference <= found.dropped * given[1].abs().max() + 2e-5).all()


def test_the_default_bound_costs_no_digit_of_float32(form, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_COLUMNS", {torch.float32: 512})
    found, expected = soft_of(peaked(60.0, -0.1, near=60.0), tiles.MASS_BOUND)
    assert 0 < float(found.dropped.min()) <= float(found.dropped.max()) <= tiles.MASS_BOUND
    torch.testing.assert_close(found.soft.double(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int8])
@pytest.mark.parametrize("rising", [0.05, -0.05])
def test_few_columns_are_multiplied_once_the_largest_is_known(form, monkeypatch, kind, rising):
    monkeypatch.setattr(tiles, "TILE_COLUMNS", {kind: 512})
    multiplied = []
    real = torch.Tensor.__getitem__

    def counted(self, index):
        found = real(self, index)
        if isinstance(index, torch.Tensor) and self.shape[1:] == (D,) and len(self) > 6:
            multiplied.append(len(found))
        return found

    hidden, embedding, temperature, uniform = peaked(60.0, rising, near=60.0)
    hidden, narrowed, rows, exactly = narrow(kind, hidden, embedding)
    monkeypatch.setattr(torch.Tensor, "__getitem__", counted)
    options = {"cap": CAP, "temperature_N": temperature, "uniform_N": uniform}
    found = tiles.head_tiles(hidden, narrowed, **options)
    expected = exact(rows, exactly, temperature)[0].exp() @ exactly.double()
    torch.testing.assert_close(found.soft.double(), expected, atol=0.02, rtol=0.02)
    assert len(multiplied) == 4, "tiles"
    assert sum(multiplied) == 3, "columns, of 2000"
    assert float(found.dropped.max()) <= 2.0**-12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_shows_in_the_entropy(form, kind, value):
    hidden, embedding, temperature, uniform = inputs()
    spoiled = hidden.index_put((torch.tensor(4), torch.tensor(3)), torch.tensor(value))
    clean, found = (run(*narrow(kind, x, embedding)[:2], temperature, uniform).entropy for x in (hidden, spoiled))
    others = torch.arange(9) != 4
    torch.testing.assert_close(found[others], clean[others])
    # In floating point an infinite logit only saturates.
    saturates = math.isinf(value) and kind != torch.int8
    assert bool(found[4].isfinite()) == saturates
    greedy = run(*narrow(kind, spoiled, embedding)[:2], temperature * 0, uniform).entropy
    assert greedy[others].tolist() == [0.0] * 8
    assert bool(greedy[4].isfinite()) == saturates


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int8])
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("rows", [1, 200])
def test_narrow_weights_against_float64(form, rows, scale, kind):
    hidden, embedding, temperature, uniform = inputs(rows, V, scale)
    hidden, weight, *values = narrow(kind, hidden, embedding)
    stats, (log_probs, noise) = run(hidden, weight, temperature, uniform), exact(*values, temperature)
    probs, wide = log_probs.exp(), values[1].double()
    if kind == torch.int8:
        error = uint8_error(probs, weight)
    else:
        # Logits are rounded to 8 bits before the cap, whose slope is at most 1. Further on, the weights, their product
        # with the embedding, and the result are.
        noise = noise + (values[0].double() @ wide.T).abs().amax(-1) * 2.0**-9 / temperature
        error = 3 * 2.0**-9 * probs @ wide.abs()
    check(stats, log_probs, noise, wide, uniform, error)
    assert stats.soft_embedding.dtype == hidden.dtype
    # Roundings go both ways, so that on the average they come nowhere near their bound.
    if kind == torch.int8:
        assert float((stats.soft_embedding / SCALE - probs @ wide).abs().mean()) < float(error.mean()) / 5


def uint8_error(probs, matrix):
    """Half a unit of every weight; the unit is the largest of the row and tile over 255."""
    parts = zip(probs.split(WIDTH, 1), matrix.data.double().split(WIDTH), matrix.scale.split(WIDTH), strict=True)
    return sum((p * scale).amax(-1)[:, None] / 510 * data.abs().sum(0) for p, data, scale in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_agree(monkeypatch, kind):
    hidden, embedding, temperature, uniform = inputs(rows=300)
    hidden, weight, _, values = narrow(kind, hidden, embedding)
    results = []
    for name in ("native", "torch"):
        with monkeypatch.context() as patch:
            choose(patch, name)
            results.append(run(hidden, weight, temperature, uniform))
    native, plain = results
    assert torch.equal(native.argmax, plain.argmax)
    assert int((native.sample != plain.sample).sum()) <= 1
    torch.testing.assert_close(native.entropy, plain.entropy, atol=1e-4, rtol=1e-5)
    # A weight that noise moves over the middle between two roundings moves by one unit.
    unit = 2.0**-15 if kind == torch.float32 else 2.0**-7
    difference = (native.soft_embedding - plain.soft_embedding).float().abs().max()
    assert float(difference) <= unit * SCALE * float(values.abs().max())
