"""Drafts of the verified mode: what they cost, what they leave behind, what they may not change."""

from __future__ import annotations

import pytest
import torch

import redraft
from checkpoints import CANVAS, write_checkpoint
from redraft.core.events import Commit, Draft
from redraft.core.results import Generation
from redraft.engine.loop import CanvasLoop
from redraft.model.cache import KVCache

TEXTS = (
    "play some jazz by Nina Simone",
    "what is the weather in Oslo",
    "how do i bake bread",
    "book a table for two",
    "add this song to my running playlist",
)
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "rooms": {"type": "integer", "minimum": 3}},
    "required": ["city", "rooms"],
}
LISTED = {"type": "array", "items": {"type": "integer", "maximum": 20}, "minItems": 3, "maxItems": 5}
TOOL = {"type": "function", "function": {"name": "Stop", "parameters": {"type": "object", "properties": {}}}}
GIVEN = {
    "free": {"tools": None},
    "its own calls": {},
    "tools": {"tools": [TOOL]},
    "no calls": {"tool_choice": "none"},
    "schema": {"response_format": {"type": "json_schema", "schema": CITY}},
    "bounds": {"response_format": {"type": "json_schema", "schema": LISTED}},
    "choice": {"response_format": {"type": "choice", "choices": ["yes please", "no"]}},
    "stop strings": {"tools": None, "stop": ["ong", "o"]},
    "cut": {"max_new_tokens": 7},
    "short canvases": {"canvas_length": 10},
    "two steps": {"max_denoising_steps": 2},
}
OF_CANVASES = {"canvas_length", "max_denoising_steps"}


def causal(engine, text, **options) -> Generation:
    options = {name: value for name, value in options.items() if name not in OF_CANVASES}
    return engine.generate(text, mode="autoregressive", **options)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("name", GIVEN)
def test_the_same_seed_writes_what_the_causal_mode_writes(mini, name, temperature):
    for seed, text in enumerate(TEXTS[:3]):
        options = {"max_new_tokens": 60, "temperature": temperature, "seed": seed} | GIVEN[name]
        expected, found = causal(mini, text, **options), mini.generate(text, mode="verified", **options)
        assert (found.token_ids, found.finish_reason) == (expected.token_ids, expected.finish_reason)
        assert (found.text, found.tool_calls) == (expected.text, expected.tool_calls)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_it_takes_two_fifths_of_the_causal_modes_forwards_at_most(mini, temperature):
    taken = {"verified": 0, "autoregressive": 0}
    for seed, text in enumerate(TEXTS):
        for mode in taken:
            stats = mini.generate(text, mode=mode, temperature=temperature, seed=seed).stats
            taken[mode] += stats.denoising_steps + stats.encode_passes - 1
    assert taken["verified"] <= 0.4 * taken["autoregressive"]


def test_a_draft_takes_one_step_unless_the_caller_says_otherwise(mini):
    one = mini.generate(TEXTS[0], mode="verified", seed=0).stats
    assert one.denoising_steps == one.canvases > 0
    given = redraft.GenerationOptions(mode="verified", max_denoising_steps=48, confidence_threshold=0.0)
    many = mini.generate(TEXTS[0], given, seed=0, settled_nats=0.0, settled_steps=0).stats
    assert many.denoising_steps == 48 * many.canvases


def test_stats_count_both_kinds_of_forwards(mini):
    stats = mini.generate(TEXTS[0], mode="verified", temperature=0, seed=0).stats
    assert stats.encode_passes == stats.canvases + 1, "of the prompt, and one a draft"
    assert stats.tokens_per_forward == stats.generated_tokens / (stats.denoising_steps + stats.encode_passes)
    assert stats.kept_per_draft == stats.verified_tokens / stats.canvases > 1


def test_budget_of_the_whole_context_is_written_as_the_causal_mode_writes_it(tmp_path):
    engine = redraft.load(
        write_checkpoint(tmp_path, eos_token_id=None, max_position_embeddings=3 * CANVAS), dtype="float32", threads=1
    )
    prompt, options = list(range(3, 3 + CANVAS + 2)), {"temperature": 0.0, "max_new_tokens": 1000}
    expected = causal(engine, prompt, **options)
    assert engine.generate(prompt, mode="verified", **options).token_ids == expected.token_ids
    assert len(expected.token_ids) == 2 * CANVAS - 2


def test_drafts_of_a_stream_hold_what_is_not_committed_yet(mini):
    committed, drafts = 0, 0
    for event in mini.stream(TEXTS[0], mode="verified", temperature=0, seed=0):
        if isinstance(event, Draft):
            drafts += 1
            assert event.token_ids[0] not in mini.info.end_ids
            assert len(event.token_ids) <= mini.info.canvas_length - committed
        elif isinstance(event, Commit):
            committed += len(event.token_ids)
        else:
            assert event.stats.canvases == drafts > 1
            assert len(event.token_ids) == committed


@pytest.mark.parametrize("exact", [True, False])
def test_company_changes_nothing(mini, monkeypatch, exact):
    monkeypatch.setattr(mini, "_loop", CanvasLoop(mini.model, exact=exact))
    options = [{"mode": "verified", "temperature": t, "seed": 3} for t in (0.0, 1.0)] + [{"seed": 3}]
    requests = [redraft.Request(prompt=text, options=options[i % 3]) for i, text in enumerate(TEXTS)]
    alone = [mini.generate(request.prompt, **request.options) for request in requests]
    together = mini.generate_batch(requests)
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]
    if exact:
        assert [r.stats.encode_passes for r in together] == [r.stats.encode_passes for r in alone]


def test_graphs_change_nothing(mini, monkeypatch):
    expected = [mini.generate(text, mode="verified", temperature=0, seed=1, tools=None) for text in TEXTS]
    loop = CanvasLoop(mini.model, exact=False, graphs=True)
    monkeypatch.setattr(mini, "_loop", loop)
    found = [mini.generate(text, mode="verified", temperature=0, seed=1, tools=None) for text in TEXTS]
    assert [reply.token_ids for reply in found] == [reply.token_ids for reply in expected]
    assert [shape.length for shape in loop.graphs._graphs] == [mini.info.canvas_length]


def test_what_is_set_aside_comes_back(tiny):
    model, ids = tiny.model, torch.tensor([list(range(3, 3 + 3 * CANVAS))])
    whole, parted = model.new_cache(), model.new_cache()
    for cache in (whole, parted):
        for piece in ids.split(CANVAS, dim=1):
            model.encode(piece, cache)
    sequence = parted.sequences[0]
    aside = sequence.set_aside(sequence.length - CANVAS + 3)
    before = model.denoise_hidden(ids[:, :CANVAS], KVCache([sequence]))
    sequence.bring_back(aside)
    assert (sequence.length, sequence.ends) == (whole.sequences[0].length, whole.sequences[0].ends)
    more = torch.tensor([[5, 6, 7]])
    assert torch.equal(model.encode(more, parted), model.encode(more, whole))
    with pytest.raises(ValueError, match="cannot go back"):
        sequence.set_aside(1)
    assert before.shape[1] == CANVAS


def test_a_reply_that_is_left_in_the_middle_ends_alone(mini):
    running, prepared = mini.running(), [mini.prepare(text, mode="verified", temperature=0) for text in TEXTS[3::-3]]
    for one in prepared:
        running.add(one)
    events = running.step()
    running.cancel(prepared[0])
    for _ in range(20):
        events += running.step()
    done = {id(one): event for one, event in events if isinstance(event, Generation)}
    assert done[id(prepared[1])].token_ids == causal(mini, TEXTS[0], temperature=0).token_ids
    assert done[id(prepared[0])].finish_reason in ("cancelled", "tool_calls")
