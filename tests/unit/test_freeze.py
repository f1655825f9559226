"""Positions that are no longer computed once the model is sure of what stands there."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

import redraft
from checkpoints import CANVAS
from redraft.core.results import Generation
from redraft.engine import look, loop
from redraft.engine.look import freeze
from redraft.engine.loop import CanvasLoop
from redraft.model.some import CanvasKeys, denoise_some

TEXTS = ("play some jazz by Nina Simone", "what is the weather in Oslo", "how do i bake bread")
NEVER = {"settled_nats": 0.0, "settled_steps": 0, "confidence_threshold": 0.0, "handover_steps": 0}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "rooms": {"type": "integer", "minimum": 3}},
    "required": ["city", "rooms"],
    "additionalProperties": False,
}
GIVEN = {
    "free": {"tools": None},
    "its own calls": {},
    "schema": {"response_format": {"type": "json_schema", "schema": CITY}},
    "confidence": {"sampler": "confidence"},
    "trimmed": {"adaptive_canvas": True},
    "pinned": {"initial_canvas": [5, 6, 7], "pinned": [1], "tools": None},
    "handed over": {"handover_steps": 5},
}


class Positions:
    """Counts the positions that a model's layers compute."""

    def __init__(self, model) -> None:
        self.rows: list[int] = []
        model.backbone.layers[0].register_forward_pre_hook(lambda _, given: self.rows.append(given[0].shape[1]))


def canvas_of(model, length):
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, model.config.vocab_size, (length,), generator=generator)


def encoded(model, count):
    cache = model.new_cache()
    model.encode(canvas_of(model, count)[None], cache)
    return cache


@pytest.mark.parametrize("prefix", [1, 7, 90])
def test_all_positions_are_what_a_whole_canvas_is(tiny, prefix):
    model, cache, L = tiny.model, encoded(tiny.model, prefix), CANVAS
    canvas, soft = canvas_of(model, L), torch.randn(L, model.config.hidden_size)
    expected = model.denoise_hidden(canvas[None], cache, soft[None])[0]
    found = denoise_some(model, canvas, torch.arange(L), cache.sequences[0], CanvasKeys(), soft)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_some_positions_of_a_canvas_that_stands_are_what_they_were(tiny):
    model, cache, L = tiny.model, encoded(tiny.model, 20), CANVAS
    canvas, kept = canvas_of(model, L), CanvasKeys()
    whole = denoise_some(model, canvas, torch.arange(L), cache.sequences[0], kept)
    places = torch.tensor([1, 4, L - 1])
    again = denoise_some(model, canvas[places], places, cache.sequences[0], kept)
    torch.testing.assert_close(again, whole[places], rtol=0, atol=1e-5)


def test_the_others_are_seen_as_they_were_computed_last(tiny):
    """By hand: a position that changes is seen by itself in the next layer, and not by what is frozen."""
    model, cache, L = tiny.model, encoded(tiny.model, 20), CANVAS
    canvas, kept = canvas_of(model, L), CanvasKeys()
    denoise_some(model, canvas, torch.arange(L), cache.sequences[0], kept)
    before = [(keys.clone(), values.clone()) for keys, values in kept.layers]
    place, token = torch.tensor([3]), torch.tensor([9])
    found = denoise_some(model, token, place, cache.sequences[0], kept)
    others = torch.arange(L) != 3
    for (keys, values), (old_keys, old_values) in zip(kept.layers, before, strict=True):
        assert torch.equal(keys[:, others], old_keys[:, others])
        assert torch.equal(values[:, others], old_values[:, others])
        assert not torch.equal(keys[:, 3], old_keys[:, 3])
    changed = canvas.clone()
    changed[3] = 9
    whole = model.denoise_hidden(changed[None], cache)[0]
    # The first layer's keys are the same in both; what the others would have made of the change is the approximation.
    assert found.shape == whole[3:4].shape
    moved = (whole[3] - model.denoise_hidden(canvas[None], cache)[0, 3]).abs().max()
    assert 0 < (found[0] - whole[3]).abs().max() < moved


@pytest.mark.parametrize("name", GIVEN)
def test_below_nothing_no_position_freezes(mini, name):
    for seed, text in enumerate(TEXTS):
        plain = mini.generate(text, seed=seed, **GIVEN[name])
        found = mini.generate(text, seed=seed, freeze_nats=1e-30, **GIVEN[name])
        assert (found.token_ids, found.stats.denoising_steps) == (plain.token_ids, plain.stats.denoising_steps)


@pytest.mark.parametrize("name", GIVEN)
def test_frozen_positions_are_not_computed_and_what_is_held_to_holds(mini, name):
    counted, taken = Positions(mini.model), []
    for nats in (0.0, 0.01, 1e6):
        counted.rows.clear()
        for seed, text in enumerate(TEXTS):
            check(name, mini.generate(text, seed=seed, freeze_nats=nats, **(NEVER | GIVEN[name])))
        taken.append(sum(counted.rows))
    assert max(taken[1:]) < taken[0]


def check(name: str, found: Generation) -> None:
    assert found.error is None
    if name == "schema":
        value = json.loads(found.text)
        assert value["rooms"] >= 3
        assert set(value) == {"city", "rooms"}
    if name == "pinned":
        assert found.token_ids[1] == 6
    if name == "its own calls":
        assert found.tool_calls or found.text


@pytest.mark.parametrize("nats", [0.05, 1e6])
def test_tokens_that_are_frozen_stay(mini, monkeypatch, nats):
    frozen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watched(sequence, state):
        freeze(sequence, state)
        frozen.append((state.frozen.still.clone(), state.tokens.clone()))

    monkeypatch.setattr(loop, "freeze", watched)
    reply = mini.generate(TEXTS[0], seed=0, tools=None, freeze_nats=nats, **NEVER)
    for (before, tokens), (now, then) in itertools.pairwise(frozen):
        assert not (before & ~now).any(), "once frozen, always"
        assert torch.equal(tokens[before], then[before])
    assert frozen[-1][0].sum() > 20
    if nats > 1:
        assert frozen[-1][0].all(), "a canvas all of whose positions are frozen is done"
        assert reply.stats.denoising_steps < 48


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("graphs", [True, False])
def test_company_and_graphs_change_nothing(mini, monkeypatch, exact, graphs):
    options = [{"seed": 3, "freeze_nats": 0.01}, {"seed": 3}]
    requests = [redraft.Request(prompt=text, options=options[i % 2]) for i, text in enumerate(TEXTS)]
    alone = [mini.generate(request.prompt, **request.options) for request in requests]
    monkeypatch.setattr(mini, "_loop", CanvasLoop(mini.model, exact=exact and not graphs, graphs=graphs))
    together = mini.generate_batch(requests)
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]


def test_what_is_no_number_fails_the_request(mini, monkeypatch):
    def broken(*_: object) -> torch.Tensor:
        return torch.full((48, mini.model.config.hidden_size), math.nan)

    monkeypatch.setattr(look, "denoise_some", broken)
    reply = mini.generate(TEXTS[0], seed=0, freeze_nats=0.1)
    assert reply.finish_reason == "error"
    assert "not finite" in reply.error
