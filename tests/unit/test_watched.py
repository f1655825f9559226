"""Scores of an automaton's classes, as the head makes them by tiles and as a device makes them, against the logits'."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import redraft
from redraft.core.automaton import DEAD, TokenAutomaton
from redraft.kernels import head_tiles as tiles
from redraft.kernels import watched
from redraft.kernels.class_scores import ClassScores, of_logits
from redraft.kernels.constrained import draw
from redraft.kernels.head import head, raw_logits, softcap
from redraft.kernels.matrices.int8 import Int8Matrix
from redraft.kernels.walk import Walk, class_scores

CAP, V, D, L, S, C = 30.0, 1500, 16, 7, 5, 14
KINDS = [torch.float32, torch.bfloat16, torch.int8]
# Logits of this size are rounded to 8 bits.
NOISE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.int8: 1e-4}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several tiles with a ragged last one, and broad classes, out of small inputs."""
    monkeypatch.setattr(tiles, "TILE_COLUMNS", dict.fromkeys(KINDS, 256))
    monkeypatch.setattr(watched, "RUN", 32)
    monkeypatch.setattr(watched, "COLUMNS", 512)
    monkeypatch.setattr("redraft.core.automaton.EXPLICIT", 10)
    monkeypatch.setattr("redraft.core.automaton.BROAD_LEAST", 150)


@pytest.fixture(params=["native", "torch", "device"])
def form(request, monkeypatch):
    if request.param == "native" and tiles.library("head") is None:
        pytest.skip("no compiler")
    if request.param == "torch":
        monkeypatch.setattr(tiles, "library", lambda _: None)
    return request.param


def automaton(seed=0) -> TokenAutomaton:
    """Three classes of hundreds of tokens, eleven of a few, and tokens that nothing takes."""
    rng = np.random.default_rng(seed)
    class_of = rng.choice(np.arange(DEAD, C), V, p=[0.1, 0.4, 0.25, 0.15, *[0.1 / (C - 3)] * (C - 3)]).astype(np.int32)
    # The second begins behind the first tile, so that it has none of that one's columns.
    class_of[:300][class_of[:300] == 1] = 0
    table = np.where(rng.random((S, C)) < 0.7, rng.integers(0, S - 1, (S, C)), DEAD).astype(np.int32)
    table[:, 5] = S - 1
    return TokenAutomaton.of_table(
        class_of,
        table,
        start=0,
        accepting=np.ones(S, bool),
        done=S - 1,
        shortest=np.zeros(S, np.int32),
        fill=0,
    )


def inputs(kind, whole: TokenAutomaton, apart: bool):
    """(hidden, embedding); if `apart`, the second and third class lie 150 nats at 0.4 below and above the others."""
    generator = torch.Generator().manual_seed(1)
    hidden, embedding = torch.randn(L, D, generator=generator), torch.randn(V, D, generator=generator) * 0.7
    if apart:
        side = np.select([whole.class_of == 1, whole.class_of == 2], [-1.0, 1.0], 0.0)
        embedding[:, 0] = torch.from_numpy(side)
        hidden[:, 0] = 90.0
    if kind == torch.int8:
        return hidden, Int8Matrix.of(embedding)
    return hidden.to(kind), embedding.to(kind)


def scores_of(form, hidden, embedding, temperature, parts) -> ClassScores:
    if form == "device":
        return class_scores(hidden, embedding, cap=CAP, temperature=temperature, parts=parts)
    stats = head(
        hidden,
        embedding,
        cap=CAP,
        embed_scale=torch.tensor(1.0),
        temperature_N=torch.full((len(hidden),), temperature),
        uniform_N=torch.full((len(hidden),), 0.5),
        parts=parts,
    )
    return stats.classes[0]


def logits_of(form, hidden, embedding):
    """In float64, of what the form multiplies: a device widens an int8 embedding."""
    if isinstance(embedding, Int8Matrix):
        return softcap(hidden @ embedding.dequantised().T if form == "device" else raw_logits(hidden, embedding), CAP)
    return torch.tanh(hidden.double() @ embedding.double().T / CAP) * CAP


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_the_logits(form, kind, temperature, apart):
    whole = automaton()
    assert whole.parts.broad.tolist() == [0, 1, 2]
    hidden, embedding = inputs(kind, whole, apart)
    got = scores_of(form, hidden, embedding, temperature, whole.parts)
    logits = logits_of(form, hidden, embedding)
    expected = of_logits(logits, temperature, whole.parts)
    noise = NOISE[kind] / (temperature or 1.0)
    close = {"atol": noise, "rtol": 1e-5}
    torch.testing.assert_close(got.explicit.double() * got.scale, expected.explicit.double() * expected.scale, **close)
    for name in ("best", "log_mass", "level"):
        torch.testing.assert_close(getattr(got.broad, name), getattr(expected.broad, name), **close)
    scaled = logits.double() / (temperature or 1.0)
    assert (expected.broad.best - scaled.gather(1, got.broad.token)).abs().max() <= 2 * noise
    if apart and temperature == 0.4:
        assert (got.broad.best[:, 2] - got.broad.best[:, 1]).min() > 140, "which an exponential would lose"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_in_a_class_is_the_inverse_of_its_cdf(form, kind, apart):
    whole, temperature = automaton(), 0.7
    hidden, embedding = inputs(kind, whole, apart)
    got = scores_of(form, hidden, embedding, temperature, whole.parts)
    scaled = logits_of(form, hidden, embedding).double() / temperature
    uniform = torch.cat([torch.tensor([0.0, 2.0**-24, 1 - 2.0**-53]), torch.linspace(0.01, 0.99, 40).double()])
    noise = 4 * NOISE[kind] / temperature
    for group in range(3):
        inside = torch.from_numpy(whole.parts.broad_of == group)
        for row in range(L):
            places = torch.full((len(uniform),), row)
            tokens = got.broad.draw(places, torch.full_like(places, group), uniform)
            assert inside[tokens].all()
            share = torch.where(inside, scaled[row], -torch.inf).softmax(-1)
            end = share.cumsum(-1)[tokens]
            assert (end - share[tokens] - noise <= uniform).all()
            assert (uniform <= end + noise).all()
            assert len(tokens.unique()) > (1 if apart else 5)


@pytest.mark.parametrize("held", ["nothing", "pins", "bars"])
@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_canvas_is_drawn_as_from_its_logits(form, seed, temperature, held):
    whole = automaton(seed)
    hidden, embedding = inputs(torch.float32, whole, apart=seed == 1)
    logits = logits_of(form, hidden, embedding)
    both = [scores_of(form, hidden, embedding, temperature, whole.parts), of_logits(logits, temperature, whole.parts)]
    rng = np.random.default_rng(seed)
    barred = rng.choice(whole.parts.ids, 5, replace=False).tolist()
    pinned = torch.full((L,), -1)
    where = torch.arange(L) < 4
    if held == "pins":
        path = draw(both[1], temperature, whole, 0, np.zeros(S), L, torch.rand(2, L)).sample
        pinned[[1, 4]] = path[[1, 4]]
        both = [scores.pinned(pinned) for scores in both]
    elif held == "bars":
        both = [scores.barred(barred, where) for scores in both]
    uniform = torch.rand(2, L, generator=torch.Generator().manual_seed(seed))
    got, expected = (draw(scores, temperature, whole, 0, np.zeros(S), L, uniform) for scores in both)
    assert torch.equal(got.argmax, expected.argmax)
    assert torch.equal(got.sample, expected.sample)
    for name in ("entropy", "local"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), atol=1e-3, rtol=0)
    if held == "pins":
        assert torch.equal(got.sample[[1, 4]], pinned[[1, 4]])
    if held == "bars":
        assert not set(got.argmax[where].tolist() + got.sample[where].tolist()) & set(barred)


def test_pins_and_bars_are_those_of_dense_logits():
    whole = automaton()
    logits = torch.randn(L, V, generator=torch.Generator().manual_seed(4)) * 3
    scores, rng = of_logits(logits, 0.8, whole.parts), np.random.default_rng(4)
    uniform = torch.rand(2, L)
    path = draw(scores, 0.8, whole, 0, np.zeros(S), L, uniform).sample
    barred, pinned = (
        rng.choice(whole.parts.ids, 30, replace=False).tolist(),
        torch.where(torch.arange(L) % 3 == 1, path, -1),
    )
    dense = logits.clone()
    dense[:5, barred] = -torch.inf
    for row in torch.nonzero(pinned >= 0)[:, 0].tolist():
        dense[row] = torch.full((V,), -torch.inf).index_fill(0, pinned[row], 0.5)
    held = scores.barred(barred, torch.arange(L) < 5).pinned(pinned)
    got = draw(held, 0.8, whole, 0, np.zeros(S), L, uniform)
    expected = draw(of_logits(dense, 0.8, whole.parts), 0.8, whole, 0, np.zeros(S), L, uniform)
    assert torch.equal(got.argmax, expected.argmax)
    assert torch.equal(got.sample, expected.sample)
    torch.testing.assert_close(got.entropy, expected.entropy, atol=1e-9, rtol=0)
    torch.testing.assert_close(got.local, expected.local, atol=1e-9, rtol=0)


def test_what_is_barred_at_single_positions_must_be_explicit():
    whole = automaton()
    scores = of_logits(torch.zeros(L, V), 1.0, whole.parts)
    with pytest.raises(ValueError, match="explicit"):
        scores.barred([int(np.flatnonzero(whole.class_of == 0)[0])], torch.ones(L, dtype=torch.bool))


def test_what_ends_a_reply_is_explicit_however_much_it_is(monkeypatch):
    monkeypatch.setattr("redraft.core.automaton.BROAD_LEAST", 1)
    parts = automaton().parts
    assert 5 not in parts.broad
    assert len(parts.broad) == C - 1


def test_a_reply_is_the_same_however_its_classes_are_summed(monkeypatch):
    schema = {"type": "object", "properties": {"song": {"type": "string"}}, "required": ["song"]}
    wanted = {"type": "json_schema", "schema": schema}
    options = {"seed": 0, "response_format": wanted, "max_new_tokens": 40, "tools": None}
    found = []
    for most in (10, 10**9):
        monkeypatch.setattr("redraft.core.automaton.EXPLICIT", most)
        engine = redraft.load("mini", dtype="float32", threads=1)
        parts = engine.prepare("play jazz", **options).sequence.constraint.automaton.parts
        assert (len(parts.broad) > 0) == (most == 10)
        found.append(engine.generate("play jazz", temperature=0, **options).token_ids)
        got = engine.generate("play jazz", **options)
        assert list(json.loads(got.text)) == ["song"]
    assert found[0] == found[1]


@pytest.mark.parametrize("least", [150, 10**6], ids=["broad", "explicit"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_walk_runs_again_at_its_addresses(monkeypatch, kind, least):
    monkeypatch.setattr("redraft.core.automaton.BROAD_LEAST", least)
    parts = automaton().parts
    assert len(parts.broad) == (3 if least == 150 else 0)
    hidden, embedding = inputs(kind, automaton(), apart=False)
    walk = Walk(embedding, cap=CAP, parts=parts, hidden=hidden.clone())
    places = [statistic.data_ptr() for statistic in (walk.statistics()[0], walk.statistics()[2])]
    for temperature, scale in ((0.7, 1.0), (0.0, -2.0), (0.4, 0.5)):
        walk.hidden.copy_(hidden * scale)
        walk.heat(temperature)
        walk.run()
        got, expected = walk.result(), of_logits(logits_of("device", walk.hidden, embedding), temperature, parts)
        noise = NOISE[kind] / (temperature or 1.0)
        close = {"atol": noise, "rtol": 1e-5}
        torch.testing.assert_close(
            got.explicit.double() * got.scale, expected.explicit.double() * expected.scale, **close
        )
        for name in ("best", "log_mass", "level"):
            torch.testing.assert_close(getattr(got.broad, name), getattr(expected.broad, name), **close)
    assert [statistic.data_ptr() for statistic in (walk.statistics()[0], walk.statistics()[2])] == places
