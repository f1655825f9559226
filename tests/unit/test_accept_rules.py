"""Rules of acceptance against a loop that is written from their formulas, and samplers in the engine."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import redraft
from redraft.core.errors import OptionError
from redraft.core.options import GenerationOptions
from redraft.engine import loop
from redraft.engine import steer as steering
from redraft.engine.canvas import CanvasNoise, new_canvas
from redraft.engine.sequence import Sequence
from redraft.sampler.accept import accept
from redraft.sampler.samplers import NEVER, Move, Rule, Seen, move, rule_of

VOCABULARY = 40
NAN, INF = float("nan"), float("inf")
TEXT = "Play some jazz by Miles Davis on Spotify"
FREE = {"tools": None, "max_new_tokens": 48}


def entropy_bound(bound: float = 0.5, floor: int = 1) -> Rule:
    return Rule(bound=bound, threshold=NEVER, floor=floor, sticky=False, greedy=False)


def confidence(threshold: float = 0.9, floor: int = 1) -> Rule:
    return Rule(bound=-1.0, threshold=threshold, floor=floor, sticky=True, greedy=True)


def seen_of(entropy, best_log_prob=None, held=None, seed=0) -> Seen:
    entropy = torch.as_tensor(entropy, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (4, *entropy.shape), generator=generator)
    return Seen(
        tokens=ids[0], argmax=ids[1], sample=ids[2], fresh=ids[3], entropy=entropy,
        best_log_prob=-entropy if best_log_prob is None else torch.as_tensor(best_log_prob, dtype=torch.float32),
        held=torch.zeros(entropy.shape, dtype=torch.bool) if held is None else torch.as_tensor(held),
    )  # fmt: skip


def numbers(*rules: Rule) -> torch.Tensor:
    return torch.tensor([rule.numbers for rule in rules]).T


def by_loop(rule: Rule, seen: Seen) -> tuple[list[int], list[bool], list[bool]]:
    """(tokens, accepted, held) of one canvas, position by position.

    taken = free and (the sum of entropies before <= bound, or p >= threshold, or the number before < floor).
    """
    entropy, held = seen.entropy.tolist(), seen.held.tolist()
    length = len(entropy)
    tokens, accepted, after = [], [], []
    for i in range(length):
        nats, rank = 0.0, 0
        for j in range(length):
            sooner = entropy[j] < entropy[i] or (entropy[j] == entropy[i] and j < i)
            if j != i and not held[j] and sooner:
                nats += entropy[j]
                rank += entropy[j] > 0
        likely = math.exp(float(seen.best_log_prob[i])) >= rule.threshold
        taken = not held[i] and math.isfinite(entropy[i]) and (nats <= rule.bound or likely or rank < rule.floor)
        own = seen.argmax if rule.greedy else seen.sample
        tokens.append(int(seen.tokens[i] if held[i] else own[i] if taken else seen.fresh[i]))
        accepted.append(held[i] or taken)
        after.append(held[i] or (taken and rule.sticky))
    return tokens, accepted, after


def check(rules: list[Rule], seen: Seen) -> Move:
    moved = move(numbers(*rules), seen)
    for row, rule in enumerate(rules):
        one = Seen(**{name: values[row] for name, values in vars(seen).items()})
        expected = by_loop(rule, one)
        assert (moved.tokens[row].tolist(), moved.accepted[row].tolist(), moved.held[row].tolist()) == expected
        alone = rule(one, 0, 48)
        assert (alone.tokens.tolist(), alone.accepted.tolist(), alone.held.tolist()) == expected
    return moved


rules_drawn = st.builds(
    Rule,
    bound=st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0, 100.0]),
    threshold=st.sampled_from([0.0, 0.3, 0.6, 0.95, 1.0, NEVER]),
    floor=st.integers(0, 6),
    sticky=st.booleans(),
    greedy=st.booleans(),
)


@given(st.lists(rules_drawn, min_size=1, max_size=4), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_batch_of_rules_is_the_loop(rules, length, seed, broken):
    """Entropies are eighths, of which sums are exact in any order and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    entropy = torch.randint(0, 7, (len(rules), length), generator=generator) / 8
    if broken:
        entropy[torch.rand(entropy.shape, generator=generator) < 0.2] = [NAN, INF][seed % 2]
    log_prob = -torch.randint(0, 5, entropy.shape, generator=generator) / 8
    held = torch.rand(entropy.shape, generator=generator) < 0.3
    check(rules, seen_of(entropy, log_prob, held, seed))


@given(st.integers(0, 2**31), st.integers(1, 64), st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_the_entropy_bound_with_its_floor_is_the_reference(seed, length, bound):
    generator = torch.Generator().manual_seed(seed)
    seen = seen_of(torch.rand(2, length, generator=generator) ** 3, seed=seed)
    rules = numbers(*[entropy_bound(bound)] * 2)
    moved = move(rules, seen)
    # A bound is a float32 in a rule.
    assert torch.equal(moved.accepted, accept(seen.entropy, rules[0][:, None]))
    assert torch.equal(moved.tokens, torch.where(moved.accepted, seen.sample, seen.fresh))
    assert not moved.held.any()


def test_of_equal_entropies_the_floor_takes_the_first():
    seen = seen_of([[0.7] * 6] * 2)
    moved = check([confidence(floor=2), entropy_bound(bound=0.8, floor=0)], seen)
    assert moved.accepted.tolist() == [[True, True, False, False, False, False]] * 2
    assert moved.held.tolist() == [[True, True, False, False, False, False], [False] * 6]


def test_what_is_no_number_is_never_taken():
    seen = seen_of([[NAN, 0.5, INF, -INF, 0.2]], [[0.0, -1.0, 0.0, 0.0, NAN]])
    moved = check([confidence(floor=99)], seen)
    assert moved.accepted.tolist() == [[False, True, False, False, True]]


@pytest.mark.parametrize("entropy", [0.0, 5.0])
def test_one_position(entropy):
    for rule in (entropy_bound(), confidence()):
        assert check([rule], seen_of([[entropy]])).accepted.tolist() == [[True]]
    assert check([confidence(floor=0)], seen_of([[5.0]])).accepted.tolist() == [[False]]


def test_what_is_held_stays_and_counts_nowhere():
    seen = seen_of([[0.1, 0.2, 0.3, 9.0]], held=[[True, False, False, True]])
    moved = check([confidence(floor=1)], seen)
    assert moved.accepted.tolist() == [[True, True, False, True]], "the floor is of those that are free"
    assert moved.tokens[0, [0, 3]].tolist() == seen.tokens[0, [0, 3]].tolist()
    assert moved.tokens[0, 1] == seen.argmax[0, 1]
    everything = seen_of([[0.1, 0.2]], held=[[True, True]])
    for rule in (entropy_bound(), confidence()):
        moved = check([rule], everything)
        assert torch.equal(moved.tokens, everything.tokens)
        assert moved.held.all()


def test_what_is_certain_uses_up_no_floor():
    """As the fill behind a budget, which would be all that a floor takes."""
    seen = seen_of([[0.7, 0.6, 0.0, 0.0, 0.0]], [[-0.9, -0.9, 0.0, 0.0, 0.0]])
    assert check([confidence()], seen).accepted.tolist() == [[False, True, True, True, True]]


def test_a_floor_is_a_promise_of_steps():
    seen, steps = seen_of(torch.linspace(3, 5, 10)[None]), 0
    while not seen.held.all():
        moved = move(numbers(confidence(threshold=1.0, floor=3)), seen)
        seen, steps = Seen(**{**vars(seen), "tokens": moved.tokens, "held": moved.held}), steps + 1
    assert steps == 4
    assert torch.equal(seen.tokens, seen.argmax)


def test_thresholds_are_those_of_probabilities():
    for threshold, least in ((0.5, math.log(0.5)), (1.0, 0.0), (0.0, -INF), (NEVER, INF)):
        assert confidence(threshold).numbers[1] == least


def test_options_are_rules():
    assert rule_of(GenerationOptions()) == entropy_bound(0.1)
    assert rule_of(GenerationOptions(entropy_bound=0.3, floor=4)) == entropy_bound(0.3, 4)
    assert rule_of(GenerationOptions(sampler="confidence")) == confidence(0.95)
    assert rule_of(GenerationOptions(sampler="confidence", threshold=0.8, floor=0)) == confidence(0.8, 0)
    own = confidence(0.7)
    assert rule_of(GenerationOptions(sampler=own)) is own
    assert rule_of(GenerationOptions(sampler=lambda *_: None)) is None
    assert rule_of(GenerationOptions(sampler=entropy_bound(), temperature=0)).greedy
    assert not rule_of(GenerationOptions(sampler=entropy_bound(), temperature=0, mode="verified")).greedy


@pytest.mark.parametrize(
    "options",
    [
        *({"sampler": value} for value in ("ddim", 3, None)),
        *({"threshold": value} for value in (1.5, -0.1, NAN)),
        *({"floor": value} for value in (-1, 1.5)),
        {"sampler": "confidence", "mode": "autoregressive"},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_sampler_is_refused_by_name(options):
    with pytest.raises(OptionError, match=f"^{next(iter(options))} "):
        GenerationOptions().with_changes(**options)


def test_temperature_zero_leaves_the_schedule_to_rules_that_need_it():
    cold = GenerationOptions(temperature=0)
    assert cold.schedule == (0.0, 0.0)
    assert cold.with_changes(sampler="confidence").schedule == (cold.t_max, cold.t_min)
    assert cold.with_changes(sampler="confidence", temperature=0.5).schedule == (cold.t_max / 2, cold.t_min / 2)
    assert GenerationOptions(threshold=0.5).ignored == ("threshold",)
    assert GenerationOptions(threshold=0.5, sampler="confidence").ignored == ()


def test_what_a_canvas_keeps_is_cut_with_it_and_let_go_up_to_its_pins():
    def canvas(pinned):
        noise = CanvasNoise(1, 0, 8, VOCABULARY, torch.device("cpu"))
        return new_canvas(noise, 1, initial=[], pinned=pinned)

    state = canvas([3, -1, 5])
    assert state.kept.tolist() == [True, False, True] + [False] * 5
    state.kept = torch.ones(8, dtype=torch.bool)
    state.cut(4)
    assert state.kept.tolist() == [True] * 4
    state.let_go()
    assert state.kept.tolist() == [True, False, True, False]
    free = canvas([])
    assert free.kept is None
    free.kept = torch.ones(8, dtype=torch.bool)
    free.let_go()
    assert free.kept is None


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32")


def steps_of(engine, text=TEXT, **options):
    *drafts, generation = [e for e in engine.stream(text, **options) if not isinstance(e, redraft.Commit)]
    return drafts, generation


@pytest.mark.parametrize("held_to", [{}, FREE], ids=["calls", "free"])
def test_confidence_keeps_what_it_has_taken_and_ends_when_all_is(engine, held_to):
    drafts, generation = steps_of(engine, seed=3, sampler="confidence", confidence_threshold=0.0, **held_to)
    assert generation.finish_reason in ("stop", "tool_calls")
    kept = [set(place for place, taken in enumerate(draft.accepted) if taken) for draft in drafts]
    assert all(one <= other for one, other in pairwise(kept))
    assert len(kept[-1]) == len(drafts[-1].token_ids)
    assert 1 < len(drafts) < engine.defaults.options.max_denoising_steps
    assert all(one < other for one, other in pairwise(kept)), "a floor of 1 always takes something"


def test_a_floor_bounds_the_steps_of_a_canvas(engine):
    length = engine.model.config.canvas_length
    options = {"sampler": "confidence", "threshold": 1.0, "floor": length // 4, "confidence_threshold": 0.0}
    assert steps_of(engine, seed=1, **options, **FREE)[1].stats.denoising_steps <= 5


def test_at_temperature_zero_it_does_not_take_everything_at_once(engine):
    cold, again = (steps_of(engine, seed=3, sampler="confidence", temperature=t) for t in (0, None))
    assert len(cold[0]) > 1
    assert [draft.token_ids for draft in cold[0]] == [draft.token_ids for draft in again[0]], "argmaxes both"


def test_a_canvas_that_is_cut_goes_on_with_what_it_keeps(engine):
    options = {"sampler": "confidence", "adaptive_canvas": True, "confidence_threshold": 0.0, "threshold": 0.999}
    drafts, generation = steps_of(engine, seed=4, **options)
    assert len(drafts[-1].token_ids) < len(drafts[0].token_ids)
    assert all(drafts[-1].accepted)
    assert generation.tool_calls[0].name == "PlayMusic"


def test_under_a_constraint_a_probability_is_the_draws(engine, monkeypatch):
    """Not the head's, which is of a token that the constraint may not take."""
    seen, drawn, constrain = [], [], steering.constrain

    def watched(model, hidden, stats, row, *rest):
        own = stats.best_log_prob[row].clone()
        steering.steer(model, hidden, stats, row, *rest)
        seen.append((own, stats.best_log_prob[row].clone()))

    monkeypatch.setattr(loop, "steer", watched)
    monkeypatch.setattr(steering, "constrain", lambda *given: drawn.append(constrain(*given)) or drawn[-1])
    choices = {"type": "choice", "choices": ["yes please", "no"]}
    engine.generate(TEXT, seed=1, sampler="confidence", response_format=choices, tools=None)
    assert len(seen) == len(drawn) > 0
    for (own, told), draw in zip(seen, drawn, strict=True):
        torch.testing.assert_close(told, draw.best_log_prob.float(), atol=0, rtol=0)
        assert not torch.equal(own, told)


def test_rules_of_one_batch_differ(engine):
    options = [
        {"seed": 1},
        {"seed": 1, "sampler": "confidence"},
        {"seed": 1, "sampler": "confidence", "threshold": 0.6},
    ]
    alone = [engine.generate(TEXT, **one) for one in options]
    together = engine.generate_batch([redraft.Request(prompt=TEXT, options=one) for one in options])
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert [one.stats.denoising_steps for one in together] == [one.stats.denoising_steps for one in alone]
    assert len({one.stats.denoising_steps for one in alone}) > 1


@pytest.mark.parametrize("sampler", ["entropy-bound", "confidence"])
def test_pins_stay_under_every_rule(engine, sampler):
    ids = engine.encode("Turn off")
    places = list(range(len(ids)))
    drafts, generation = steps_of(
        engine, sampler=sampler, initial_canvas=ids, pinned=places, seed=2, **(FREE | {"max_new_tokens": 24})
    )
    for draft in drafts:
        assert list(draft.token_ids[: len(ids)]) == ids
        assert all(draft.accepted[: len(ids)])
    assert list(generation.token_ids[: len(ids)]) == ids
    infilled = engine.infill("The [[...]] is [[...]].", sampler=sampler, seed=1, max_new_tokens=32)
    assert infilled.text.startswith("The ")


@pytest.mark.parametrize("exact", [True, False])
def test_all_pinned(engine, monkeypatch, exact):
    """The entropy bound stops when it always has: once the canvas has stood still."""
    monkeypatch.setattr(engine, "_loop", loop.CanvasLoop(engine.model, exact=exact, on_encoded=engine._remember))
    ids = [7] * engine.model.config.canvas_length
    options = {"initial_canvas": ids, "pinned": range(len(ids)), "seed": 2, **FREE}
    samplers = ("entropy-bound", "confidence")
    found = engine.generate_batch(
        [redraft.Request(prompt=TEXT, options={"sampler": sampler, **options}) for sampler in samplers]
    )
    assert [list(one.token_ids) for one in found] == [ids, ids]
    assert [one.stats.denoising_steps for one in found] == [2, 1]


@pytest.mark.parametrize("graphs", [False, True])
def test_a_constraint_that_is_narrowed_lets_go(engine, monkeypatch, graphs):
    """At the third step the constraint becomes another; what was held until then was held to the first."""
    monkeypatch.setattr(
        engine, "_loop", loop.CanvasLoop(engine.model, exact=not graphs, graphs=graphs, on_encoded=engine._remember)
    )  # fmt: skip
    narrowed = []

    def narrow(sequence, token_ids):
        if sequence.canvas.taken != 2 or narrowed:
            return False
        narrowed.append(sequence.constraint)
        sequence.constraint = copy.copy(sequence.constraint)
        return True

    monkeypatch.setattr(Sequence, "narrow", narrow)
    pattern = {"type": "regex", "pattern": "[a-z ]{60}"}
    options = {"sampler": "confidence", "threshold": 1.0, "floor": 5, "confidence_threshold": 0.0, "tools": None}
    drafts, _ = steps_of(engine, seed=1, response_format=pattern, **options)
    assert narrowed
    kept = [sum(draft.accepted) for draft in drafts]
    assert kept[0] < kept[1]
    assert kept[2] < kept[1]
    assert kept[3] > kept[2]


def test_a_sampler_that_is_the_rule_writes_the_same(engine):
    """A user's own, operator by operator, beside the named one."""
    rule, calls = confidence(0.95), []

    def own(seen, step, max_denoising_steps):
        calls.append((step, max_denoising_steps, tuple(seen.entropy.shape)))
        return rule(seen, step, max_denoising_steps)

    named = engine.generate(TEXT, seed=5, sampler="confidence")
    mine = engine.generate(TEXT, seed=5, sampler=own)
    assert mine.token_ids == named.token_ids
    assert mine.stats.denoising_steps == named.stats.denoising_steps == len(calls)
    assert calls[1] == (1, 48, (engine.model.config.canvas_length,))


def test_a_sampler_moves_no_pin_and_answers_for_what_it_returns(engine):
    ids = engine.encode("Turn off")
    options = {"initial_canvas": ids, "pinned": list(range(len(ids))), "max_denoising_steps": 3, **FREE}

    def rewriting(seen, step, max_denoising_steps):
        assert seen.held[: len(ids)].all()
        seen.held.zero_(), seen.tokens.zero_()
        nothing = torch.zeros_like(seen.held)
        return Move(tokens=torch.zeros_like(seen.tokens), accepted=nothing, held=nothing)

    assert list(engine.generate("Hi", sampler=rewriting, seed=1, **options).token_ids[: len(ids)]) == ids

    def returning(**changes):
        def sampler(seen, step, max_denoising_steps):
            good = {"tokens": seen.tokens, "accepted": seen.held, "held": seen.held}
            return Move(**{**good, **{name: change(seen) for name, change in changes.items()}})

        return sampler

    wrong = {
        "must return a Move": lambda *_: None,
        "tokens of 48 positions": returning(tokens=lambda seen: seen.tokens[:3]),
        "held of 48 positions": returning(held=lambda seen: seen.tokens),
        "token ids from 0": returning(tokens=lambda seen: seen.tokens - 10**6),
    }
    for message, sampler in wrong.items():
        with pytest.raises(OptionError, match=f"sampler must return.*{message.removeprefix('must return ')}"):
            engine.generate("Hi", sampler=sampler, seed=1)
    good, bad = engine.running(), wrong["must return a Move"]
    requests = [engine.prepare("Hi", seed=1, max_new_tokens=8), engine.prepare("Hi", seed=1, sampler=bad)]
    for request in requests:
        good.add(request)
    done = {}
    while len(done) < 2:
        done |= {id(one): event for one, event in good.step() if isinstance(event, redraft.Generation)}
    assert done[id(requests[0])].error is None
    assert "sampler must return a Move" in done[id(requests[1])].error
