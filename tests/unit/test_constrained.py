"""The joint distribution of a canvas under an automaton against every sequence enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.core.automaton import DEAD, TokenAutomaton
from redraft.kernels.class_scores import of_logits
from redraft.kernels.constrained import CanvasDraw, draw
from redraft.kernels.native.build import library
from redraft.sampler.constrained import ends, feasible

S, V, L = 3, 5, 4
ALL = np.zeros(S)


def automaton_of(table: np.ndarray, accepting: np.ndarray) -> TokenAutomaton:
    """From a full [S, V] table; tokens with equal columns become one class, as in the real thing."""
    columns, class_of = np.unique(table, axis=1, return_inverse=True)
    return TokenAutomaton.of_table(
        class_of.reshape(-1).astype(np.int32),
        columns.astype(np.int32),
        start=0,
        accepting=accepting,
        done=len(table) - 1,
        shortest=np.zeros(len(table), np.int32),
        fill=0,
    )


def drawn(logits, temperature, automaton, *rest) -> CanvasDraw:
    """A draw by the definition of the classes' scores."""
    return draw(of_logits(logits, temperature, automaton.parts), temperature, automaton, *rest)


def joint(table: np.ndarray, accepting: np.ndarray, probabilities: np.ndarray) -> dict[tuple[int, ...], float]:
    """Unnormalised probability of every sequence that the automaton takes."""
    found = {}
    for sequence in itertools.product(range(table.shape[1]), repeat=len(probabilities)):
        state = 0
        for token in sequence:
            state = table[state, token] if state != DEAD else DEAD
        if state != DEAD and accepting[state]:
            found[sequence] = float(np.prod([p[token] for p, token in zip(probabilities, sequence, strict=True)]))
    return found


@st.composite
def cases(draw_from):
    seed = draw_from(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    table = rng.integers(DEAD, S, (S, V))
    accepting = rng.random(S) < 0.6
    logits = torch.from_numpy(rng.normal(size=(L, V)) * rng.choice([0.5, 3.0])).float()
    return table, accepting, logits, float(rng.choice([0.4, 0.8, 2.0]))


@pytest.fixture(params=["native", "reference"])
def form(request, monkeypatch):
    if request.param == "reference":
        monkeypatch.setattr("redraft.kernels.constrained.runs_natively", lambda *arguments, **kinds: False)
    elif library("paths") is None:
        pytest.skip("no compiler here")


@pytest.fixture(params=["explicit", "broad"])
def parting(request, monkeypatch):
    """Whether classes are summed as a whole."""
    if request.param == "broad":
        monkeypatch.setattr("redraft.core.automaton.EXPLICIT", 1)
        monkeypatch.setattr("redraft.core.automaton.BROAD_LEAST", 1)


@given(cases())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("form", "parting")
def test_argmax_and_entropies_are_those_of_the_joint_distribution(case):
    table, accepting, logits, temperature = case
    probabilities = torch.softmax(logits.double() / temperature, -1).numpy()
    expected = joint(table, accepting, probabilities)
    automaton, end = automaton_of(table, accepting), np.where(accepting, 0.0, -np.inf)
    assert feasible(automaton, 0, {}, end, L) == bool(expected)
    if not expected:
        return
    got = drawn(logits, temperature, automaton, 0, end, L, torch.rand(2, L))
    total = sum(expected.values())
    assert expected[tuple(got.argmax.tolist())] == pytest.approx(max(expected.values()), rel=1e-9)
    assert tuple(got.sample.tolist()) in expected
    marginals = np.zeros((L, V))
    for sequence, weight in expected.items():
        for place, token in enumerate(sequence):
            marginals[place, token] += weight / total
    entropy = -np.where(marginals > 0, marginals * np.log(np.where(marginals > 0, marginals, 1)), 0).sum(-1)
    np.testing.assert_allclose(got.entropy.numpy(), entropy, rtol=0, atol=1e-9)
    own = np.where(marginals > 0, probabilities, 0)
    own /= own.sum(-1, keepdims=True)
    local = -np.where(own > 0, own * np.log(np.where(own > 0, own, 1)), 0).sum(-1)
    np.testing.assert_allclose(got.local.numpy(), local, rtol=0, atol=1e-9)
    best = np.minimum(marginals, own)[np.arange(L), got.argmax.numpy()]
    np.testing.assert_allclose(got.best_log_prob.numpy(), np.log(best), rtol=0, atol=1e-9)
    cold = drawn(logits, 0.0, automaton, 0, end, L, torch.rand(2, L))
    assert torch.equal(cold.argmax, cold.sample)
    assert torch.equal(cold.argmax, got.argmax)
    assert not cold.entropy.any()
    assert not cold.best_log_prob.any()


@pytest.mark.usefixtures("form", "parting")
def test_a_value_is_empty_only_where_no_other_is_likelier():
    """Of `""`, `"a"`, `"aa"`, ... with padding behind them: what stands behind a short text counts as much as a long
    one's letters, so that neither is favoured."""
    quote, letter, pad = range(3)
    table = np.array([[1, DEAD, DEAD], [2, 1, DEAD], [DEAD, DEAD, 3], [DEAD, DEAD, 3]])
    accepting = np.array([False, False, True, True])
    automaton, end = automaton_of(table, accepting), np.where(accepting, 0.0, -np.inf)
    rng = np.random.default_rng(3)
    lengths = []
    for case in range(60):
        logits = torch.from_numpy(rng.normal(size=(6, 3)) * 2).float()
        # In every other case the model thinks that the text has ended early, as it does where it means another.
        logits[3:, pad] += 6.0 * (case % 2)
        found = joint(table, accepting, torch.softmax(logits.double(), -1).numpy())
        best = drawn(logits, 1.0, automaton, 0, end, 6, torch.rand(2, 6)).argmax.tolist()
        others = max(weight for sequence, weight in found.items() if letter in sequence)
        empty = found[(quote, quote, pad, pad, pad, pad)]
        assert (letter not in best) == (empty > others)
        lengths.append(best.count(letter))
    assert {0, 1, 4} <= set(lengths)


@pytest.mark.usefixtures("form", "parting")
def test_samples_have_the_joint_distributions_frequencies():
    """Chi-square with the 99.99% bound of the normal approximation."""
    rng = np.random.default_rng(5)
    table = np.array([[0, 1, 1, DEAD, 2], [DEAD, 0, 2, 2, DEAD], [1, DEAD, 0, 0, 2]])
    accepting = np.array([False, True, True])
    logits = torch.from_numpy(rng.normal(size=(L, V))).float()
    expected = joint(table, accepting, torch.softmax(logits.double(), -1).numpy())
    automaton, end = automaton_of(table, accepting), np.where(accepting, 0.0, -np.inf)
    draws, counts = 4000, dict.fromkeys(expected, 0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(draws):
        uniform = torch.rand(2, L, generator=generator)
        counts[tuple(drawn(logits, 1.0, automaton, 0, end, L, uniform).sample.tolist())] += 1
    total = sum(expected.values())
    wanted = np.array([draws * weight / total for weight in expected.values()])
    statistic = float((((np.array(list(counts.values())) - wanted) ** 2) / wanted).sum())
    freedom = len(expected) - 1
    assert freedom > 50
    assert statistic < freedom + 3.7 * (2 * freedom) ** 0.5


@pytest.mark.usefixtures("form", "parting")
def test_a_constraint_that_the_model_gives_no_mass_still_holds():
    """The only text that matches has probability e^-9000: float64 alone would lose it."""
    table = np.array([[1, DEAD], [1, DEAD]])
    accepting = np.array([False, True])
    logits = torch.tensor([[-30.0, 30.0]]).repeat(300, 1)
    automaton, end = automaton_of(table, accepting), np.where(accepting, 0.0, -np.inf)
    got = drawn(logits, 0.02, automaton, 0, end, 300, torch.rand(2, 300))
    assert not got.sample.any()
    assert not got.argmax.any()
    np.testing.assert_allclose(got.entropy.numpy(), 0.0, atol=1e-9)


def test_the_budget_bounds_where_a_canvas_may_end():
    automaton = TokenAutomaton.of_table(
        np.array([0], np.int32),
        np.array([[1], [2], [2]], np.int32),
        start=0,
        accepting=np.array([False, False, True]),
        done=2,
        shortest=np.array([2, 1, 0], np.int32),
        fill=0,
    )
    used, end = ends(automaton, remaining=3, length=4)
    assert used == 3
    assert np.isfinite(end).tolist() == [False, False, True], "the budget ends in this canvas: only a whole text"
    used, end = ends(automaton, remaining=5, length=4)
    assert used == 4
    assert np.isfinite(end).tolist() == [False, True, True], "one token is left for what follows"


@pytest.mark.usefixtures("form")
def test_what_lies_behind_the_budget_is_fill():
    table, accepting = np.array([[0, 0, 0, 0, 0]] * S), np.ones(S, bool)
    automaton = automaton_of(table, accepting)
    got = drawn(torch.randn(L, V), 1.0, automaton, 0, ALL, 2, torch.rand(2, L))
    assert got.argmax[2:].tolist() == [0, 0]
    assert got.sample[2:].tolist() == [0, 0]
    assert got.entropy[2:].tolist() == [0.0, 0.0]
    assert got.best_log_prob[2:].tolist() == [0.0, 0.0]
    assert len(got.entropy) == L


@pytest.mark.usefixtures("parting")
@pytest.mark.parametrize("seed", range(6))
def test_the_native_form_is_the_definition(seed, monkeypatch):
    """On an automaton of many states and sets, with logits of a real model's spread and some barred."""
    rng = np.random.default_rng(seed)
    states, vocabulary, length = 40, 60, 12
    table = np.where(rng.random((states, vocabulary)) < 0.15, rng.integers(0, states, (states, vocabulary)), DEAD)
    table[:, 0] = rng.integers(0, states, states)
    automaton = automaton_of(table, np.ones(states, bool))
    logits = torch.from_numpy(rng.normal(size=(length, vocabulary)) * 12).float()
    logits[torch.from_numpy(rng.random((length, vocabulary)) < 0.2)] = -torch.inf
    logits[:, 0] = -30.0
    end, uniform = np.where(rng.random(states) < 0.7, 0.0, -np.inf), torch.from_numpy(rng.random((2, length)))
    native = drawn(logits, 0.6, automaton, 0, end, length, uniform)
    monkeypatch.setattr("redraft.kernels.constrained.runs_natively", lambda *arguments, **kinds: False)
    defined = drawn(logits, 0.6, automaton, 0, end, length, uniform)
    assert torch.equal(native.argmax, defined.argmax)
    assert torch.equal(native.sample, defined.sample)
    torch.testing.assert_close(native.entropy, defined.entropy, rtol=0, atol=1e-9)
    torch.testing.assert_close(native.local, defined.local, rtol=0, atol=1e-9)
    torch.testing.assert_close(native.best_log_prob, defined.best_log_prob, rtol=0, atol=1e-9)


def test_where_nothing_is_left_it_says_so(monkeypatch):
    automaton = automaton_of(np.array([[1, DEAD], [DEAD, 1]]), np.array([False, True]))
    nothing = torch.tensor([[0.0, 1.0], [-torch.inf, -torch.inf]])
    end = np.array([-np.inf, 0.0])
    with pytest.raises(ValueError, match="no sequence"):
        drawn(nothing, 1.0, automaton, 0, end, 2, torch.rand(2, 2))
    monkeypatch.setattr("redraft.kernels.constrained.runs_natively", lambda *arguments, **kinds: False)
    with pytest.raises(ValueError, match="no sequence"):
        drawn(nothing, 1.0, automaton, 0, end, 2, torch.rand(2, 2))
