"""Pins, drafts to start from, short canvases, the plateau stop, empty replies and the judge, on mini and at random."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import redraft
from checkpoints import CANVAS, write_checkpoint
from redraft import OptionError, PromptError, Request
from redraft.core.presets import PRESETS
from redraft.model.cache import KVCache

TEXT = "Play the new Daft Punk album"
REQUESTS = [
    TEXT,
    "what is the weather like in Oslo tomorrow",
    "add Clem Burke to my Pre-Party playlist",
    "book a table for four in Berlin",
    "how do i bake bread",
]


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def random_engine(tmp_path_factory):
    return redraft.load(
        write_checkpoint(tmp_path_factory.mktemp("steer"), eos_token_id=None), dtype="float32", threads=1
    )


@pytest.fixture
def engine(random_engine):
    """A model with random weights, without end-of-turn."""
    yield random_engine
    random_engine.admission.defaults = dataclasses.replace(random_engine.defaults, end_ids=frozenset())


def end_with(engine, *ids: int) -> None:
    engine.admission.defaults = dataclasses.replace(engine.defaults, end_ids=frozenset(ids))


@pytest.mark.parametrize("preset", [None, *PRESETS])
@pytest.mark.parametrize("where", [(0,), (2, 5), tuple(range(1, CANVAS)), (CANVAS - 1, CANVAS, 2 * CANVAS + 3)])
def test_pins_survive_under_every_preset(engine, preset, where):
    draft = [(7 * i + 3) % 199 for i in range(3 * CANVAS)]
    options = {"seed": 3, "max_new_tokens": 3 * CANVAS, "preset": preset, "max_denoising_steps": 12}
    got = engine.generate([5, 6, 7], initial_canvas=draft, pinned=where, **options)
    assert [got.token_ids[place] for place in where] == [draft[place] for place in where]
    free = engine.generate([5, 6, 7], **options)
    assert any(got.token_ids[place] != free.token_ids[place] for place in where)


def test_the_reply_does_not_end_before_what_is_pinned(mini):
    ids = mini.tokenizer.encode("this stays where it is")
    draft = [5] * 30 + ids
    held = range(30, 30 + len(ids))
    got = mini.generate("how do i bake bread", seed=0, initial_canvas=draft, pinned=held, max_new_tokens=48)
    assert list(got.token_ids[30 : 30 + len(ids)]) == ids


def test_pins_without_a_draft_are_refused(mini):
    with pytest.raises(OptionError, match="initial_canvas"):
        mini.generate(TEXT, pinned=(1,))
    with pytest.raises(OptionError, match="pinned"):
        mini.generate(TEXT, initial_canvas=[5, 6], pinned=(2,))
    with pytest.raises(OptionError, match="budget|beyond"):
        mini.generate(TEXT, initial_canvas=[5] * 20, pinned=(19,), max_new_tokens=10)


def test_a_good_draft_stays(mini):
    plain = mini.generate(TEXT, seed=0)
    again = mini.generate(TEXT, seed=5, initial_canvas=list(plain.token_ids))
    assert again.token_ids == plain.token_ids


@pytest.mark.parametrize("length", [20, 32])
def test_a_declared_canvas_is_that_long(mini, length):
    events = list(mini.stream(TEXT, seed=0, canvas_length=length))
    assert {len(event.token_ids) for event in events[:-1] if isinstance(event, redraft.Draft)} == {length}
    assert events[-1].tool_calls == mini.generate(TEXT, seed=0).tool_calls
    with pytest.raises(OptionError, match="canvas_length"):
        mini.generate(TEXT, canvas_length=49)


def test_an_adaptive_canvas_drops_what_lies_behind_the_end(mini):
    shrunk = 0
    for seed, text in enumerate(REQUESTS):
        # By its text it would be done before anything can leave it.
        events = list(mini.stream(text, seed=seed, adaptive_canvas=True, confidence_threshold=0.005))
        lengths = [len(event.token_ids) for event in events if isinstance(event, redraft.Draft)]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[-1] > len(events[-1].token_ids)
        shrunk += lengths[-1] < lengths[0]
    assert shrunk > 0


def test_a_canvas_that_gets_nowhere_is_given_up(engine):
    options = {"seed": 1, "max_new_tokens": CANVAS, "confidence_threshold": 0.0, "max_denoising_steps": 40}
    plain = engine.generate([5, 6, 7], **options)
    assert plain.stats.denoising_steps == 40
    stopped = engine.generate([5, 6, 7], **options, plateau_steps=3)
    assert stopped.stats.denoising_steps < 40
    assert stopped.stats.plateaus == 1
    assert stopped.stats.encode_passes > plain.stats.encode_passes, "the judge read the candidates"


def test_an_empty_reply_is_drafted_once_more(engine):
    # Where the end stands decides what the text is: by the text, each of these would stop elsewhere.
    options = {"seed": 2, "max_new_tokens": CANVAS, "confidence_threshold": 0.005}
    first = engine.generate([5, 6, 7], **options).token_ids[0]
    end_with(engine, first)
    empty = engine.generate([5, 6, 7], **options, retry_empty=False)
    assert (empty.token_ids, empty.finish_reason, empty.stats.empty_retries) == ((), "stop", 0)
    got = engine.generate([5, 6, 7], **options)
    assert got.stats.empty_retries == 1
    assert got.token_ids
    assert got.token_ids[0] != first
    assert got.finish_reason != "empty"


def test_an_empty_reply_that_comes_back_says_so(mini):
    """Only end-of-turn and one unprintable token are left to choose from: what shows nothing is empty."""
    space = mini.tokenizer.encode(" ")[:1]
    before = mini.admission.defaults
    everything = frozenset(range(mini.info.vocab_size)) - set(space)
    mini.admission.defaults = dataclasses.replace(before, end_ids=everything)
    try:
        got = mini.generate(TEXT, seed=0, max_new_tokens=8, tools=None)
    finally:
        mini.admission.defaults = before
    assert got.finish_reason == "empty"
    assert got.stats.empty_retries == 1
    assert not got.text


def test_log_probabilities_are_the_causal_modes(mini):
    got = mini.generate(TEXT, seed=0, logprobs=True)
    prompt = mini.tokenize(TEXT)
    cache = KVCache(mini.model.new_cache().sequences)
    hidden = mini.model.encode(torch.tensor([[*prompt, *got.token_ids]]), cache)
    table = torch.log_softmax(mini.model.logits(hidden)[0], -1)
    expected = [float(table[len(prompt) + i - 1, token]) for i, token in enumerate(got.token_ids)]
    assert got.logprobs == pytest.approx(expected, abs=1e-4)
    causal = mini.generate(TEXT, seed=0, logprobs=True, mode="autoregressive", temperature=0)
    assert len(causal.logprobs) == len(causal.token_ids)
    assert mini.generate(TEXT, seed=0).logprobs is None


def test_log_probabilities_over_several_canvases(engine):
    got = engine.generate([5, 6, 7], seed=1, max_new_tokens=3 * CANVAS - 2, logprobs=True)
    plain = engine.generate([5, 6, 7], seed=1, max_new_tokens=3 * CANVAS - 2)
    assert got.token_ids == plain.token_ids
    assert len(got.logprobs) == 3 * CANVAS - 2
    cache = engine.model.new_cache()
    hidden = engine.model.encode(torch.tensor([[5, 6, 7, *got.token_ids]]), cache)
    table = torch.log_softmax(engine.model.logits(hidden)[0], -1)
    expected = [float(table[2 + i, token]) for i, token in enumerate(got.token_ids)]
    assert got.logprobs == pytest.approx(expected, abs=1e-3)


def test_doubts_point_into_the_raw_reply(mini):
    text = "add the new Daft Punk album to my Sunday morning playlist"
    # Two steps are too few for a good canvas.
    got = [mini.generate(text, seed=seed, redraft=1, max_denoising_steps=2) for seed in range(6)]
    doubts = [(reply, doubt) for reply in got for doubt in reply.doubts]
    assert doubts
    assert all(reply.raw[doubt.start : doubt.end] == doubt.text for reply, doubt in doubts)
    assert all(doubt.log_prob < 0 for _, doubt in doubts)


def test_a_redraft_is_kept_only_if_the_judge_prefers_it(engine):
    options = {"max_new_tokens": CANVAS, "max_denoising_steps": 6, "logprobs": True}
    kept = tried = 0
    for seed in range(12):
        plain = engine.generate([5, 6, 7], seed=seed, **options)
        again = engine.generate([5, 6, 7], seed=seed, redraft=2, **options)
        assert sum(again.logprobs) >= sum(plain.logprobs) - 1e-4
        assert (again.token_ids != plain.token_ids) == (again.stats.redrafts_kept > 0)
        kept, tried = kept + again.stats.redrafts_kept, tried + again.stats.redrafts
    assert tried > kept > 0


VARIANTS = [
    {"logprobs": True},
    {"redraft": 2},
    {"preset": "trimmed"},
    {"preset": "redrafted"},
    {"mode": "verified"},
    {"canvas_length": 16},
    {"response_format": {"type": "choice", "choices": ["yes please", "no"]}, "max_denoising_steps": 4},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_seeds_repeat_alone_and_in_company(mini, options):
    asked = {"max_new_tokens": 64, "max_denoising_steps": 10, **options}
    alone = [mini.generate(text, seed=i, **asked) for i, text in enumerate(REQUESTS)]
    again = [mini.generate(text, seed=i, **asked) for i, text in enumerate(REQUESTS)]
    together = mini.generate_batch([Request(prompt=t, options={"seed": i, **asked}) for i, t in enumerate(REQUESTS)])
    assert [g.token_ids for g in alone] == [g.token_ids for g in again] == [g.token_ids for g in together]


def test_holes_are_filled_and_the_rest_stays(mini):
    arguments = ",".join(f'{key}:<|"|>[[...]]<|"|>' for key in ("sort", "artist", "music_item"))
    got = mini.infill(f"<|tool_call>call:PlayMusic{{{arguments}}}<tool_call|>", TEXT, seed=0)
    assert got.tool_calls[0].arguments == {"sort": "new", "artist": "Daft Punk", "music_item": "album"}
    assert got.filled == ("new", "Daft Punk", "album")
    exact = mini.infill("It is [[...4]] o'clock.", seed=1)
    assert len(exact.filled[0]) == 4
    assert exact.raw == f"It is {exact.filled[0]} o'clock."
    with pytest.raises(PromptError, match="hole"):
        mini.infill("nothing to fill")


def test_an_edit_keeps_what_is_around_its_span(mini):
    text = "Play the new Daft Punk album (twice)."
    got = mini.edit(text, (13, 22), "another band", seed=0, max_denoising_steps=3)
    assert got.raw == f"Play the new {got.filled[0]} album (twice)."
    with pytest.raises(PromptError, match="span"):
        mini.edit(text, (30, 99), "x")
