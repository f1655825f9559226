"""The causal mode's rules: budgets, ends, events, prefixes, the nucleus."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import redraft
from checkpoints import write_checkpoint
from redraft.core.errors import ContextLengthError, OptionError
from redraft.core.events import Commit
from redraft.engine.prefix import PrefixCache
from redraft.engine.stops import Stops
from redraft.sampler.nucleus import nucleus

# A random model repeats the last token unless it is heated.
CAUSAL = {"mode": "autoregressive", "temperature": 12.0}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return redraft.load(
        write_checkpoint(tmp_path_factory.mktemp("causal"), eos_token_id=None), dtype="float32", threads=1
    )


@pytest.fixture
def engine(shared):
    shared.prefixes = PrefixCache()
    return shared


def test_the_budget_is_exact_and_every_forward_is_counted(engine):
    got = engine.generate([5, 6, 7], seed=1, max_new_tokens=5, **CAUSAL)
    assert (len(got.token_ids), got.finish_reason) == (5, "length")
    assert (got.stats.canvases, got.stats.denoising_steps, got.stats.encode_passes) == (0, 0, 5)
    assert got.stats.tokens_per_forward == 1.0
    assert got.stats.time_to_first_canvas_s <= got.stats.total_s


def test_same_seed_same_text_alone_streamed_and_beside_a_canvas(engine):
    alone = engine.generate([5, 6, 7], seed=1, max_new_tokens=9, **CAUSAL)
    *events, last = engine.stream([5, 6, 7], seed=1, max_new_tokens=9, **CAUSAL)
    assert all(isinstance(event, Commit) for event in events)
    assert tuple(token for event in events for token in event.token_ids) == last.token_ids == alone.token_ids
    requests = [
        redraft.Request(prompt=[5, 6, 7], options={"seed": 1, "max_new_tokens": 9, **CAUSAL}),
        redraft.Request(prompt=[9], options={"seed": 2, "max_new_tokens": 9, "max_denoising_steps": 2}),
    ]
    assert engine.generate_batch(requests)[0].token_ids == alone.token_ids
    other = engine.generate([5, 6, 7], seed=2, max_new_tokens=9, **CAUSAL)
    assert other.token_ids != alone.token_ids


def test_a_prompt_that_was_encoded_before_gives_the_same_text(engine, monkeypatch):
    monkeypatch.setattr(engine.admission, "stops", Stops(canvas_length=0, opening=(7, 8)))
    first = engine.generate([5, 6, 7, 8], seed=1, max_new_tokens=6, **CAUSAL)
    again = engine.generate([5, 6, 7, 8], seed=1, max_new_tokens=6, **CAUSAL)
    assert again.token_ids == first.token_ids
    longer = engine.generate([5, 6, 7, 8, *first.token_ids, 3], seed=1, max_new_tokens=6, **CAUSAL)
    assert longer.stats.cached_tokens == 4


def test_end_of_turn_ends_the_reply(engine):
    free = engine.generate([5, 6], seed=0, max_new_tokens=12, **CAUSAL)
    end = free.token_ids[6]
    before = free.token_ids.index(end)
    defaults = engine.defaults
    engine.admission.defaults = dataclasses.replace(defaults, end_ids=frozenset({end}))
    try:
        got = engine.generate([5, 6], seed=0, max_new_tokens=12, **CAUSAL)
    finally:
        engine.admission.defaults = defaults
    assert got.token_ids == free.token_ids[:before]
    assert got.finish_reason == "stop"


def test_the_context_ends_the_reply(engine):
    prompt = [5] * 510
    got = engine.generate(prompt, seed=0, max_new_tokens=12, **CAUSAL)
    assert (len(got.token_ids), got.finish_reason) == (2, "length")
    with pytest.raises(ContextLengthError):
        engine.generate([5] * 512, **CAUSAL)


def test_a_model_that_breaks_ends_its_request_alone(engine, monkeypatch):
    logits = engine.model.logits
    monkeypatch.setattr(engine.model, "logits", lambda hidden: logits(hidden) * float("nan"))
    broken = redraft.Request(prompt=[5], options={"seed": 0, "max_new_tokens": 4, **CAUSAL})
    whole = redraft.Request(prompt=[6], options={"seed": 0, "max_new_tokens": 4, "max_denoising_steps": 2})
    first, second = engine.generate_batch([broken, whole])
    assert (first.finish_reason, second.finish_reason) == ("error", "length")
    assert "not finite" in (first.error or "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "backwards"}, "mode"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_p": 0.0, **CAUSAL}, "top_p"),
        ({"top_p": 1.5, **CAUSAL}, "top_p"),
    ],
)
def test_what_cannot_be_is_refused(engine, options, reason):
    with pytest.raises(OptionError, match=reason):
        engine.generate([5], **options)


def test_a_small_nucleus_is_greedy(engine):
    greedy = engine.generate([5, 6, 7], max_new_tokens=8, **CAUSAL | {"temperature": 0.0})
    for seed in range(3):
        got = engine.generate([5, 6, 7], seed=seed, top_p=1e-6, max_new_tokens=8, **CAUSAL)
        assert got.token_ids == greedy.token_ids


def test_the_nucleus_is_the_smallest_that_reaches_its_mass():
    probabilities = torch.tensor([[0.1, 0.4, 0.3, 0.2], [0.25, 0.25, 0.25, 0.25]])
    assert torch.allclose(nucleus(probabilities, 0.7), torch.tensor([[0, 4 / 7, 3 / 7, 0], [1 / 3, 1 / 3, 1 / 3, 0]]))
    assert torch.equal(nucleus(probabilities, 1.0), probabilities)
    assert torch.equal(nucleus(probabilities, 1e-9)[1], torch.tensor([1.0, 0, 0, 0]))
