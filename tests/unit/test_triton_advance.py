"""The end of a step in one launch, and its rotary tables, in Triton's interpreter, against the torch forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interpreted import interpreting, loop_bounds

with interpreting():
    from redraft.checkpoint.load import load_model
    from redraft.checkpoint.locate import BUNDLED
    from redraft.engine.graph import StepGraph
    from redraft.kernels.head_stats import HeadStats
    from redraft.kernels.triton.rotary import rotary_triton
    from redraft.model import rope
    from redraft.model.rope import inverse_frequencies, rotary
    from redraft.sampler import advance
    from redraft.sampler.advance import Canvases
    from redraft.sampler.samplers import NEVER, Rule

interpreted = loop_bounds
STEPS, VOCABULARY = 4, 50
ENTROPY_BOUND = {"threshold": NEVER, "floor": 1, "sticky": False, "greedy": False}
CONFIDENCE = {"bound": -1.0, "sticky": True, "greedy": True}


def set_rules(found, rules):
    found.rules.copy_(torch.tensor([rule.numbers for rule in rules]).T)


def canvases(batch, length, threshold, generator):
    found = Canvases.empty(batch, length, threshold, STEPS, torch.device("cpu"))
    found.noise.random_(0, VOCABULARY, generator=generator)
    found.uniforms.uniform_(generator=generator)
    found.temperatures.uniform_(generator=generator)
    found.place.random_(0, STEPS, generator=generator)
    set_rules(found, [Rule(bound=float(b), **ENTROPY_BOUND) for b in torch.rand(batch, generator=generator) * 2])
    found.tokens.random_(0, VOCABULARY, generator=generator)
    found.confidence.uniform_(0, 2, generator=generator)
    found.ends[:, :5].random_(0, VOCABULARY, generator=generator)
    found.settled_nats.uniform_(0, 3, generator=generator)
    found.settled_steps.random_(0, 4, generator=generator)
    return found


def stats(batch, length, generator, entropy=None):
    if entropy is None:
        # Few values, so that many are equal; sums of these are exact in any order.
        entropy = torch.randint(0, 6, (batch, length), generator=generator) / 8
    argmax, sample = torch.randint(0, VOCABULARY, (2, batch, length), generator=generator).unbind(0)
    zero = torch.zeros(batch, length)
    return HeadStats(
        argmax=argmax,
        sample=sample,
        entropy=entropy,
        log_prob=zero,
        best_log_prob=-entropy / 2,
        soft_embedding=zero,
        dropped_mass=zero,
    )


def copied(found):
    return Canvases(**{name: tensor.clone() for name, tensor in vars(found).items()})


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Calls a function with tensors that are said to lie on a GPU."""

    def call(function, *given):
        with monkeypatch.context() as patch:
            for module in (advance, rope):
                patch.setattr(module, "on_gpu", lambda *_: True)
                patch.setattr(module, "attempt", lambda name, fast, reference, form="": fast())
            return function(*given)

    return call


@pytest.fixture
def launched(as_on_a_gpu):
    """The Triton form of a step's end."""
    return lambda found, given: as_on_a_gpu(found.advance, given)


def assert_same(found, expected):
    for name, tensor in vars(expected).items():
        # Means are sums in another order.
        torch.testing.assert_close(
            getattr(found, name), tensor, atol=1e-6, rtol=1e-5, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("threshold", [0, 1, 2, 3])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 1), (2, 7), (3, 48), (1, 256), (2, 300), (1, 1024)])
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
        settled.append((found.verdict[0] == 2).tolist())
    assert settled == [[False, False], [False, False], [True, False], [True, False]]
    other = stats(2, 12, generator, given.entropy)
    launched(found, other)
    assert not (found.verdict[0] == 2).any()


def test_the_surest_is_taken_however_unsure(launched):
    generator = torch.Generator().manual_seed(0)
    found = canvases(1, 9, 1, generator)
    launched(found, stats(1, 9, generator, torch.linspace(500, 400, 9)[None]))
    assert found.accepted.tolist() == [[False] * 8 + [True]]
    launched(found, stats(1, 9, generator, torch.full((1, 9), 300.0)))
    assert found.accepted.tolist() == [[True] + [False] * 8], "of equal ones the first"


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_what_is_accepted_is_the_rule(launched, scale):
    """Of entropies that are not multiples of one another, as a model has them; the sums are float64."""
    generator = torch.Generator().manual_seed(int(scale * 100))
    for _ in range(5):
        found = canvases(3, 100, 1, generator)
        entropy = torch.rand(3, 100, generator=generator) ** 3 * scale
        launched(found, stats(3, 100, generator, entropy))
        ascending, order = torch.sort(entropy.double(), dim=-1, stable=True)
        slack = found.rules[0][:, None] - (ascending.cumsum(-1) - ascending)
        assert slack.abs().min() > 1e-5, "float32 sums would decide"
        assert torch.equal(found.accepted, torch.zeros(3, 100, dtype=torch.bool).scatter(-1, order, slack >= 0))
        assert found.accepted.any(-1).all()


def test_at_temperature_zero_all_is_accepted(launched):
    generator = torch.Generator().manual_seed(0)
    found = canvases(2, 48, 0, generator)
    found.rules[0] = 0.0
    found.confidence.copy_(torch.tensor([0.0, 1e-6]))
    given = stats(2, 48, generator, torch.zeros(2, 48))
    launched(found, given)
    assert found.accepted.all()
    assert (found.verdict[0] == 2).tolist() == [False, True], "a mean at the threshold is not below it"
    assert torch.equal(found.tokens, given.sample)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("places", [[4], [0, 8], list(range(9))])
def test_what_is_not_finite_is_said(launched, broken, places):
    generator = torch.Generator().manual_seed(0)
    meant = canvases(2, 9, 1, generator)
    found = copied(meant)
    entropy = torch.randint(0, 6, (2, 9), generator=generator) / 8
    entropy[1, places] = broken
    given = stats(2, 9, generator, entropy)
    meant.advance(given)
    with np.errstate(invalid="ignore"):
        launched(found, given)
    assert found.verdict[1].tolist() == [1.0, 0.0]
    assert ((found.tokens >= 0) & (found.tokens < VOCABULARY)).all()
    assert_same(found, meant)


# The named ones, and each number of a rule on its own.
MIXED = [
    Rule(threshold=0.8, floor=1, **CONFIDENCE),
    Rule(threshold=NEVER, floor=4, **CONFIDENCE),
    Rule(threshold=0.0, floor=0, **CONFIDENCE),
    Rule(threshold=0.9, floor=0, **CONFIDENCE),
    Rule(bound=0.5, **ENTROPY_BOUND),
    Rule(bound=0.5, threshold=0.7, floor=2, sticky=True, greedy=False),
    Rule(bound=0.25, threshold=0.9, floor=0, sticky=False, greedy=True),
    Rule(bound=-1.0, threshold=NEVER, floor=0, sticky=True, greedy=True),
]


@pytest.mark.parametrize("length", [1, 7, 48, 300])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rules_of_one_launch_differ(launched, length, share):
    generator = torch.Generator().manual_seed(length)
    meant = canvases(len(MIXED), length, 1, generator)
    set_rules(meant, MIXED)
    meant.held.copy_(torch.rand(meant.held.shape, generator=generator) < share)
    found, seen = copied(meant), []
    for _ in range(4):
        given, before = stats(len(MIXED), length, generator), copied(meant)
        meant.advance(given)
        launched(found, given)
        assert_same(found, meant)
        assert torch.equal(found.tokens[before.held], before.tokens[before.held])
        assert torch.equal(found.verdict[3] == 1, found.held.all(-1))
        assert (found.held >= before.held).all()
        seen.append(found.held.sum(-1).tolist())
    assert found.held[2].all(), "a threshold of 0 takes all at once"
    if share == 0 and length > 1:
        assert [held[1] for held in seen[:2]] != seen[0][1:2] * 2, "a floor holds some more at each step"
        assert found.held[4].sum() == found.held[6].sum() == found.held[7].sum() == 0


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_no_rule_takes_what_is_not_finite(launched, broken):
    generator = torch.Generator().manual_seed(1)
    meant = canvases(len(MIXED), 9, 1, generator)
    set_rules(meant, MIXED)
    found = copied(meant)
    entropy = torch.randint(0, 6, (len(MIXED), 9), generator=generator) / 8
    entropy[:, [0, 4]] = broken
    given = stats(len(MIXED), 9, generator, entropy)
    # Sure to be taken, if it were looked at.
    given.best_log_prob[:, 0] = 0.0
    given.best_log_prob[:, 5] = float("nan")
    meant.advance(given)
    with np.errstate(invalid="ignore"):
        launched(found, given)
    assert_same(found, meant)
    assert not found.accepted[:, [0, 4]].any()


def test_a_step_begins_with_its_own_draws(as_on_a_gpu):
    generator = torch.Generator().manual_seed(0)
    for batch, length in ((1, 1), (3, 48), (2, 1500)):
        found = canvases(batch, length, 1, generator)
        for one, other in zip(as_on_a_gpu(found.draws), found.draws(), strict=True):
            assert torch.equal(one, other)


def test_a_canvas_that_is_too_long_is_torchs(launched, monkeypatch):
    monkeypatch.delattr("redraft.kernels.triton.advance.advance_triton")
    generator = torch.Generator().manual_seed(0)
    meant = canvases(1, 1100, 1, generator)
    found, given = copied(meant), stats(1, 1100, generator)
    meant.advance(given)
    launched(found, given)
    assert_same(found, meant)


@pytest.mark.parametrize(("theta", "factor", "size"), [(1e4, 1.0, 16), (1e6, 0.25, 512), (1e4, 1.0, 12)])
def test_rotary_tables(as_on_a_gpu, theta, factor, size):
    """An angle is a float32 on both sides: at 262,144 radians its neighbours are 1/32 away."""
    frequencies = inverse_frequencies(theta, factor, size)
    positions = torch.tensor([[0, 1, 2, 1023], [5, 262_144, 99_999, 7]])
    angles = (positions[..., None].float() * frequencies).double()[:, :, None]
    for dtype, bound in ((torch.float32, 1e-6), (torch.bfloat16, 2.0**-8)):
        tables = as_on_a_gpu(rotary, positions, frequencies, dtype)
        for found, torchs, exact in zip(
            tables, rotary(positions, frequencies, dtype), (angles.cos(), angles.sin()), strict=True
        ):
            assert (found.shape, found.dtype) == (torchs.shape, dtype)
            torch.testing.assert_close(found, torchs, atol=bound, rtol=0)
            torch.testing.assert_close(found.double(), exact, atol=bound, rtol=0)


def test_rotary_tables_of_positions_that_lie_apart():
    frequencies, positions = inverse_frequencies(1e4, 1.0, 16), torch.arange(24).view(6, 4)[:, ::2]
    for found, expected in zip(
        rotary_triton(positions, frequencies, torch.float32), rotary(positions, frequencies, torch.float32), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_steps_of_the_bundled_model_are_the_same(as_on_a_gpu):
    """Two canvases of prefixes and blocks of their own, through the end of a block of noise."""
    model = load_model(BUNDLED / "mini", dtype=torch.float32)
    L, V, steps = model.config.canvas_length, model.config.vocab_size, 4
    # No draw of this seed lies at a border between tokens: weights that differ by 2e-6 give the same canvases.
    generator = torch.Generator().manual_seed(4)
    cache = model.new_cache(2)
    model.encode(torch.randint(0, V, (2, 20), generator=generator), cache, [20, 7])
    graphs = [StepGraph(model, batch_size=2, length=L, capacity=64, threshold=1) for _ in range(2)]
    S = len(graphs[0].canvases.noise)
    rules = Rule(bound=1.0, **ENTROPY_BOUND), Rule(threshold=0.5, floor=2, **CONFIDENCE)
    for row, (sequence, rule) in enumerate(zip(cache.sequences, rules, strict=True)):
        tokens, history = torch.randint(0, V, (L,), generator=generator), advance.new_history(1, 1, L, model.device)
        noise, uniform = torch.randint(0, V, (S, L), generator=generator), torch.rand(S, L, generator=generator)
        for graph in graphs:
            graph.place(
                row, sequence, tokens=tokens, soft=None, history=history, kept=None, rule=rule, confidence_threshold=0.1
            )
            graph.feed(row, uniform, noise, [0.8 - 0.01 * s for s in range(S)], S - 2 + row)
    (meant, found), changed = graphs, []
    for _ in range(steps):
        before = meant.canvases.tokens.clone()
        expected, verdicts = meant.step(), as_on_a_gpu(found.step)
        for name in ("tokens", "history", "argmax", "accepted", "held", "place"):
            assert torch.equal(getattr(found.canvases, name), getattr(meant.canvases, name)), name
        changed.append(not torch.equal(meant.canvases.tokens, before))
        for one, other in zip(verdicts, expected, strict=True):
            assert (one.settled, one.finite) == (other.settled, other.finite)
            # float32 on both sides, through all layers.
            assert one.mean_entropy == pytest.approx(other.mean_entropy, abs=1e-4)
    assert changed[0]
    assert meant.canvases.accepted.any()
    assert meant.canvases.held.any(-1).tolist() == [False, True]
    assert meant.canvases.verdict[3].tolist() == meant.canvases.held.all(-1).float().tolist()
