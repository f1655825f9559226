"""A canvas that does not settle is handed over: the causal mode writes the rest of the reply."""

from __future__ import annotations

import json

import pytest

import redraft
from checkpoints import CANVAS, write_checkpoint
from redraft.core.errors import OptionError
from redraft.core.events import Commit
from redraft.engine import handover, loop
from redraft.engine.loop import CanvasLoop

TEXTS = (
    "play some jazz by Nina Simone",
    "what is the weather in Oslo",
    "how do i bake bread",
    "book a table for two",
)
NEVER = {"settled_nats": 0.0, "settled_steps": 0, "confidence_threshold": 0.0}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "rooms": {"type": "integer", "minimum": 3}},
    "required": ["city", "rooms"],
}
LISTED = {"type": "array", "items": {"type": "integer", "maximum": 20}, "minItems": 3, "maxItems": 5}
STOP = {"type": "function", "function": {"name": "Stop", "parameters": {"type": "object", "properties": {}}}}
ZEBRA = {"type": "function", "function": {"name": "get_zebra", "parameters": {"type": "object", "properties": {}}}}
GIVEN = {
    "free": {"tools": None},
    "its own calls": {},
    "no calls": {"tool_choice": "none"},
    "schema": {"response_format": {"type": "json_schema", "schema": CITY}},
    "bounds": {"response_format": {"type": "json_schema", "schema": LISTED}},
    "stop strings": {"tools": None, "stop": ["ong", "o"]},
    "cut": {"max_new_tokens": 7},
    "greedy": {"temperature": 0},
    "log-probabilities": {"logprobs": True},
    "trimmed": {"adaptive_canvas": True},
    "confidence": {"sampler": "confidence", "threshold": 1.0, "floor": 1},
}


def causal(engine, prompt, **options):
    canvases = {"adaptive_canvas", "sampler", "threshold", "floor"}
    options = {name: value for name, value in options.items() if name not in canvases}
    return engine.generate(prompt, **{"mode": "autoregressive", "temperature": 0.4, **options})


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", GIVEN)
def test_what_is_handed_over_at_once_is_what_the_causal_mode_writes(mini, name, steps):
    for seed, text in enumerate(TEXTS[:3]):
        options = {"max_new_tokens": 60, "seed": seed} | GIVEN[name]
        expected = causal(mini, text, **options)
        found = mini.generate(text, handover_steps=steps, **NEVER, **options)
        assert (found.token_ids, found.finish_reason) == (expected.token_ids, expected.finish_reason)
        assert (found.text, found.tool_calls) == (expected.text, expected.tool_calls)
        assert found.stats.handovers == 1
        assert found.stats.denoising_steps == steps + found.stats.canvases - 1, "drafts behind it take one each"
        if options.get("logprobs"):
            assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-3)


def test_what_is_committed_before_stays(tiny, monkeypatch):
    prompt, budget = list(range(3, 30)), 3 * CANVAS + 2
    plain = tiny.generate(prompt, seed=1, max_new_tokens=budget, max_denoising_steps=4, t_min=0.0)
    is_due = handover.is_due
    monkeypatch.setattr(loop, "is_due", lambda sequence, state: state.number == 1 and is_due(sequence, state))
    given = {"seed": 1, "max_new_tokens": budget, "max_denoising_steps": 4, "t_min": 0.0}
    found = tiny.generate(prompt, handover_steps=2, **given, **NEVER)
    first = plain.token_ids[:CANVAS]
    rest = causal(tiny, [*prompt, *first], max_new_tokens=budget - CANVAS, temperature=0).token_ids
    assert found.token_ids == first + rest


def test_a_canvas_that_settles_in_time_is_its_own(mini):
    plain = [mini.generate(text, seed=seed, handover_steps=0) for seed, text in enumerate(TEXTS)]
    most = max(reply.stats.denoising_steps for reply in plain)
    found = [mini.generate(text, seed=seed, handover_steps=most + 1) for seed, text in enumerate(TEXTS)]
    assert [reply.token_ids for reply in found] == [reply.token_ids for reply in plain]
    assert [reply.stats.handovers for reply in found] == [0] * len(TEXTS)


def test_at_the_last_step_only_what_has_not_settled_goes(mini):
    options = {"seed": 2, "max_denoising_steps": 2, "handover_steps": 2}
    assert mini.generate(TEXTS[0], **NEVER, **options).stats.handovers == 1
    settled = mini.generate(TEXTS[0], settled_nats=1e6, stability_threshold=0, settled_steps=0, **options)
    assert settled.stats.handovers == 0


def test_pins_and_calls_that_may_turn_into_a_sentence_keep_their_canvas(mini):
    given = {"initial_canvas": [5, 6, 7], "pinned": [1], "tools": None}
    pinned = mini.generate(TEXTS[0], handover_steps=1, seed=0, **given, **NEVER)
    assert pinned.token_ids[1] == 6
    assert pinned.stats.handovers == 0
    called = mini.generate(TEXTS[0], tools=[STOP], handover_steps=1, seed=0, **NEVER)
    assert called.stats.denoising_steps > 48, "until it is known what it would call"
    options = {"tools": [ZEBRA], "seed": 0}
    said = mini.generate("play some jazz", handover_steps=6, **options)
    assert said.raw == mini.generate("play some jazz", **options).raw
    assert not said.tool_calls, "the sentence in a call's place stays what it is"


def test_an_initial_canvas_without_pins_is_a_draft_like_any_other(mini):
    reply = mini.generate(TEXTS[0], initial_canvas="x y z", handover_steps=1, seed=0, **NEVER)
    assert reply.token_ids == causal(mini, TEXTS[0], seed=0).token_ids


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("graphs", [True, False])
def test_company_and_graphs_change_nothing(mini, monkeypatch, exact, graphs):
    options = [{"seed": 3, "handover_steps": 2, **NEVER}, {"seed": 3, "handover_steps": 4}, {"seed": 3}]
    requests = [redraft.Request(prompt=text, options=options[i % 3]) for i, text in enumerate(TEXTS)]
    alone = [mini.generate(request.prompt, **request.options) for request in requests]
    monkeypatch.setattr(mini, "_loop", CanvasLoop(mini.model, exact=exact and not graphs, graphs=graphs))
    together = mini.generate_batch(requests)
    assert [reply.token_ids for reply in together] == [reply.token_ids for reply in alone]
    assert sum(reply.stats.handovers for reply in together) >= 2


def test_a_nucleus_is_ignored_as_a_canvas_ignores_it(mini):
    plain = mini.generate(TEXTS[0], handover_steps=1, seed=0, **NEVER)
    found = mini.generate(TEXTS[0], handover_steps=1, seed=0, top_p=0.95, **NEVER)
    assert found.token_ids == plain.token_ids
    assert (plain.ignored, found.ignored) == ((), ("top_p",))


def test_a_stream_commits_each_token_once(mini):
    committed = []
    for event in mini.stream(TEXTS[0], handover_steps=2, seed=0, **NEVER):
        if isinstance(event, Commit):
            committed += event.token_ids
    assert tuple(committed) == causal(mini, TEXTS[0], seed=0).token_ids


def test_a_second_turn_goes_on_from_what_is_cached(mini):
    options = {"handover_steps": 1, "seed": 0, **NEVER}
    turns = [{"role": "user", "content": TEXTS[1]}]
    turns += [{"role": "assistant", "content": mini.generate(turns, **options).raw}]
    turns += [{"role": "user", "content": "and in Bergen"}]
    reply = mini.generate(turns, **options)
    assert reply.stats.cached_tokens > 0
    assert reply.token_ids == causal(mini, turns, seed=0).token_ids


@pytest.mark.parametrize("options", [{"redraft": 1}, {"probabilities": True}, {"preset": "redrafted"}])
def test_what_needs_its_canvases_is_refused_by_name(options):
    with pytest.raises(OptionError, match="handover_steps"):
        redraft.GenerationOptions(handover_steps=4, **options)
    with pytest.raises(OptionError, match="belongs to canvases"):
        redraft.GenerationOptions().with_changes(mode="autoregressive", handover_steps=4)


def test_a_models_own_habit_gives_way_to_what_needs_its_canvases(tmp_path):
    directory = write_checkpoint(tmp_path, eos_token_id=None)
    (directory / "redraft.json").write_text(json.dumps({"handover_steps": 2, "settled_nats": 0.0, "settled_steps": 0}))
    engine = redraft.load(directory, dtype="float32", threads=1)
    prompt, options = list(range(3, 20)), {"seed": 1, "max_new_tokens": CANVAS}
    assert engine.generate(prompt, **options).stats.handovers == 1
    assert engine.generate(prompt, redraft=1, **options).stats.handovers == 0
    with pytest.raises(OptionError, match="handover_steps"):
        engine.generate(prompt, redraft=1, handover_steps=2, **options)
