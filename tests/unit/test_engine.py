"""The engine on a random checkpoint without tokenizer: budgets, batches, prefixes, failures, events."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import redraft
from checkpoints import CANVAS, EOS, VOCAB, write_checkpoint
from redraft import Commit, ContextLengthError, Draft, Generation, OptionError, PromptError, Request
from redraft.engine.load import load
from redraft.engine.prefix import PrefixCache
from redraft.engine.stops import Stops

PROMPTS = [[5, 6, 7], [9] * 20, list(range(10, 47)), [3], [44, 45, 46, 47, 48]]
STEPS = {"max_denoising_steps": 4}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("engine"), eos_token_id=None)


@pytest.fixture(scope="module")
def shared(directory):
    return load(directory, dtype="float32", threads=1)


@pytest.fixture
def engine(shared):
    """The loaded model with nothing remembered."""
    shared.prefixes = PrefixCache()
    return shared


def ids(generation: Generation) -> tuple[int, ...]:
    return generation.token_ids


@pytest.mark.parametrize("budget", [1, CANVAS - 1, CANVAS, CANVAS + 1, 3 * CANVAS])
def test_the_budget_is_exact(engine, budget):
    got = engine.generate([5, 6, 7], seed=1, max_new_tokens=budget, **STEPS)
    assert len(got.token_ids) == budget
    assert got.finish_reason == "length"
    assert got.stats.generated_tokens == budget
    assert got.stats.canvases == -(-budget // CANVAS)
    assert got.stats.denoising_steps <= 4 * got.stats.canvases
    # The prompt, and every canvas that another one follows; the last is not encoded.
    assert got.stats.encode_passes == got.stats.canvases


def test_a_shorter_budget_is_a_prefix(engine):
    long = engine.generate([5, 6, 7], seed=1, max_new_tokens=2 * CANVAS, **STEPS)
    short = engine.generate([5, 6, 7], seed=1, max_new_tokens=CANVAS + 2, **STEPS)
    assert short.token_ids == long.token_ids[: CANVAS + 2]


def test_same_seed_same_text_alone_and_in_a_batch(engine):
    alone = [engine.generate(p, seed=i, max_new_tokens=20, **STEPS) for i, p in enumerate(PROMPTS)]
    engine.prefixes = PrefixCache()
    requests = [Request(prompt=p, options={"seed": i, "max_new_tokens": 20, **STEPS}) for i, p in enumerate(PROMPTS)]
    together = engine.generate_batch(requests)
    assert [ids(g) for g in together] == [ids(g) for g in alone]
    assert len({ids(g) for g in together}) == len(PROMPTS)
    assert ids(engine.generate(PROMPTS[0], seed=99, max_new_tokens=20, **STEPS)) != ids(alone[0])


def test_a_real_batch_is_the_same_up_to_rounding(engine):
    """Rows of one forward, as on a GPU: here no token differs, though last bits may."""
    requests = [Request(prompt=p, options={"seed": i, "max_new_tokens": 8, **STEPS}) for i, p in enumerate(PROMPTS)]
    exact = engine.generate_batch(requests)
    engine.prefixes = PrefixCache()
    engine._loop.exact = False
    try:
        batched = engine.generate_batch(requests)
    finally:
        engine._loop.exact = True
    same = sum(a == b for x, y in zip(exact, batched, strict=True) for a, b in zip(ids(x), ids(y), strict=True))
    assert same >= 0.9 * 8 * len(PROMPTS)


def test_requests_of_one_batch_may_differ_in_everything(engine):
    options = [
        {"seed": 1, "max_new_tokens": 3, "max_denoising_steps": 1},
        {"seed": 2, "max_new_tokens": 24, "max_denoising_steps": 6, "entropy_bound": 50.0},
        {"seed": 3, "max_new_tokens": 9, "temperature": 0.0},
    ]
    together = engine.generate_batch([Request(prompt=[4, 5], options=o) for o in options])
    engine.prefixes = PrefixCache()
    assert [ids(engine.generate([4, 5], **o)) for o in options] == [ids(g) for g in together]


def test_no_seed_means_a_fresh_one_that_is_reported(engine):
    first = engine.generate([5], max_new_tokens=8, **STEPS)
    second = engine.generate([5], max_new_tokens=8, **STEPS)
    assert first.seed != second.seed
    assert ids(engine.generate([5], seed=first.seed, max_new_tokens=8, **STEPS)) == ids(first)


def test_zero_temperature_is_the_limit(engine):
    zero = list(engine.stream([5, 6], seed=3, temperature=0.0, max_new_tokens=CANVAS))
    cold = list(engine.stream([5, 6], seed=3, temperature=1e-4, max_new_tokens=CANVAS))
    assert ids(zero[-1]) == ids(cold[-1])
    assert ids(zero[-1]) == ids(engine.generate([5, 6], seed=3, t_max=0.0, t_min=0.0, max_new_tokens=CANVAS))
    drafts = [event for event in zero if isinstance(event, Draft)]
    assert all(all(draft.accepted) and set(draft.entropy_nats) == {0.0} for draft in drafts)
    # Entropy 0 is confident, so a canvas stops as soon as it repeats itself.
    assert drafts[-1].token_ids == drafts[-2].token_ids


def test_events_come_in_order(engine):
    events = list(engine.stream([5, 6], seed=0, max_new_tokens=2 * CANVAS, **STEPS))
    assert isinstance(events[-1], Generation)
    commits = [event for event in events if isinstance(event, Commit)]
    assert [commit.canvas for commit in commits] == [0, 1]
    assert sum((commit.token_ids for commit in commits), ()) == events[-1].token_ids
    for commit in commits:
        drafts = [e for e in events if isinstance(e, Draft) and e.canvas == commit.canvas]
        assert [draft.step for draft in drafts] == list(range(commit.denoising_steps))
        assert drafts[-1].token_ids == commit.token_ids
        assert all(len(d.accepted) == len(d.entropy_nats) == len(d.token_ids) == CANVAS for d in drafts)
        assert all(any(draft.accepted) for draft in drafts)
        assert [d.temperature for d in drafts] == sorted((d.temperature for d in drafts), reverse=True)
    assert ids(engine.generate([5, 6], seed=0, max_new_tokens=2 * CANVAS, **STEPS)) == ids(events[-1])


def test_closing_a_stream_cancels_it(engine):
    stream = engine.stream([5, 6], seed=0, max_new_tokens=64)
    assert isinstance(next(stream), Draft)
    stream.close()
    assert len(ids(engine.generate([5, 6], seed=0, max_new_tokens=8))) == 8


def test_end_of_turn_ends_the_reply(engine):
    free = engine.generate([5, 6], seed=0, max_new_tokens=3 * CANVAS, **STEPS)
    end = free.token_ids[CANVAS + 3]
    before = free.token_ids.index(end)
    engine.admission.defaults = dataclasses.replace(engine.defaults, end_ids=frozenset({end}))
    try:
        got = engine.generate([5, 6], seed=0, max_new_tokens=3 * CANVAS, **STEPS)
    finally:
        engine.admission.defaults = dataclasses.replace(engine.defaults, end_ids=frozenset())
    assert got.token_ids == free.token_ids[:before]
    assert got.finish_reason == "stop"
    assert got.stats.canvases == before // CANVAS + 1


def test_the_next_turn_encodes_only_what_is_new(engine, monkeypatch):
    monkeypatch.setattr(engine.admission, "stops", Stops(canvas_length=CANVAS, opening=(6, 7)))
    first = engine.generate([5, 6, 7], seed=0, max_new_tokens=2 * CANVAS, **STEPS)
    history = [5, 6, 7, *first.token_ids]
    second = engine.generate([*history, 8, 9], seed=1, max_new_tokens=CANVAS, **STEPS)
    # The last canvas of the first turn was never encoded.
    assert second.stats.cached_tokens == 3 + CANVAS
    assert second.stats.prompt_tokens == len(history) + 2
    again = engine.generate([5, 6, 7], seed=0, max_new_tokens=2 * CANVAS, **STEPS)
    assert again.stats.cached_tokens == 3
    assert ids(again) == ids(first)
    engine.prefixes = PrefixCache()
    fresh = engine.generate([*history, 8, 9], seed=1, max_new_tokens=CANVAS, **STEPS)
    assert fresh.stats.cached_tokens == 0
    assert ids(fresh) == ids(second)


def test_a_stranger_who_begins_alike_shares_nothing(engine):
    engine.generate([5, 6, 7], seed=0, max_new_tokens=CANVAS, **STEPS)
    assert engine.generate([5, 6, 8], seed=0, max_new_tokens=CANVAS, **STEPS).stats.cached_tokens == 0


def test_the_prefix_cache_keeps_to_its_budget(engine):
    engine.prefixes = PrefixCache(budget_bytes=40_000)
    for start in range(3, 12):
        engine.generate([start] * 30, seed=0, max_new_tokens=CANVAS, max_denoising_steps=1)
    assert 0 < engine.prefixes.nbytes <= 40_000
    assert engine.generate([11] * 30, seed=0, max_new_tokens=1, max_denoising_steps=1).stats.cached_tokens == 30
    assert engine.generate([3] * 30, seed=0, max_new_tokens=1, max_denoising_steps=1).stats.cached_tokens == 0


def test_a_request_that_fails_ends_alone(engine, monkeypatch):
    whole = engine.model.head

    def spoiled(hidden, temperature, *rest):
        stats = whole(hidden, temperature, *rest)
        if float(temperature[0]) == pytest.approx(0.77):
            stats.entropy.fill_(float("nan"))
        return stats

    monkeypatch.setattr(engine.model, "head", spoiled)
    bad = Request(prompt=[5], options={"t_max": 0.77, "t_min": 0.77, "max_new_tokens": 8, **STEPS})
    good = Request(prompt=[6], options={"seed": 4, "max_new_tokens": 8, **STEPS})
    failed, fine = engine.generate_batch([bad, good])
    assert failed.finish_reason == "error"
    assert "not finite" in (failed.error or "")
    assert fine.finish_reason == "length"
    assert ids(fine) == ids(engine.generate([6], seed=4, max_new_tokens=8, **STEPS))


def test_a_prompt_over_the_context_says_both_lengths(engine):
    with pytest.raises(ContextLengthError, match="600 tokens.*512") as caught:
        engine.generate([5] * 600)
    assert (caught.value.prompt_tokens, caught.value.context_tokens) == (600, 512)


def test_a_reply_ends_where_the_context_ends(engine):
    got = engine.generate([5] * (512 - 2 * CANVAS - 3), seed=0, max_new_tokens=100, max_denoising_steps=1)
    assert len(got.token_ids) == 2 * CANVAS
    assert got.finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ([], "empty"),
        ("", "empty"),
        ("  \n", "empty"),
        ("hello", "no tokenizer"),
        ([{"role": "user", "content": "hi"}], "chat template"),
        ([1, VOCAB], f"token id {VOCAB} at position 1"),
        ([-1], "token id -1"),
    ],
)
def test_a_prompt_that_cannot_be_read(engine, prompt, reason):
    with pytest.raises(PromptError, match=reason):
        engine.generate(prompt)


def test_an_unknown_option_is_a_type_error_that_names_it(engine):
    with pytest.raises(TypeError, match="max_new_token.*did you mean 'max_new_tokens'"):
        engine.generate([5], max_new_token=3)
    with pytest.raises(redraft.RedraftError):
        engine.generate([5], max_new_token=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 1.5},
        {"max_denoising_steps": 0},
        {"t_max": 0.3, "t_min": 0.4},
        {"entropy_bound": -1.0},
        {"entropy_bound": float("nan")},
        {"seed": -1},
        {"seed": 2**64},
        {"stop": [""]},
        {"temperature": "hot"},
        {"mode": "backwards"},
        {"redraft": -1},
        {"pinned": (0,)},
        {"tool_choice": "required"},
    ],
)
def test_a_value_that_cannot_work_is_refused(engine, changes):
    with pytest.raises(OptionError, match=next(iter(changes))):
        engine.generate([5], **changes)


def test_a_seed_may_use_all_64_bits(engine):
    high = engine.generate([5], seed=2**64 - 1, max_new_tokens=8, **STEPS)
    assert high.seed == 2**64 - 1
    assert ids(high) != ids(engine.generate([5], seed=2**63 - 1, max_new_tokens=8, **STEPS))


def test_bfloat16_runs(directory):
    engine = load(directory, dtype="bfloat16", threads=1)
    assert engine.info.dtype == "bfloat16"
    assert len(ids(engine.generate([5, 6], seed=0, max_new_tokens=8, **STEPS))) == 8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"device": "warp"}, "warp"),
        ({"dtype": "float8"}, "float8"),
        ({"quantize": "int3"}, "int3"),
        ({"threads": 0}, "threads"),
        ({"max_context": 0}, "max_context"),
    ],
)
def test_load_refuses_what_it_cannot_do(directory, arguments, reason):
    with pytest.raises(OptionError, match=reason):
        load(directory, **arguments)


def test_info_tells_what_is_loaded(engine):
    info = engine.info
    assert (info.vocab_size, info.canvas_length, info.max_context) == (VOCAB, CANVAS, 512)
    assert info.parameters == sum(p.numel() for p in engine.model.parameters())
    assert not info.has_tokenizer
    assert info.defaults["max_denoising_steps"] == 48
    assert engine.pieces([EOS]) == [f"<{EOS}>"]
    assert engine.tokenize([5, 6]) == [5, 6]
    assert torch.get_num_threads() == 1
