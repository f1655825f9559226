"""A step as one launch: on a CPU the same work is called, by the same host code."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import pytest
import torch

import redraft
from redraft.bench.shapes import shape_config
from redraft.core.events import Draft
from redraft.core.results import Generation
from redraft.engine import graphs as pool
from redraft.engine.graph import EncodeGraph, StepGraph
from redraft.engine.loop import CanvasLoop
from redraft.model import feedforward
from redraft.model.cache import KVCache
from redraft.model.model import DiffusionGemma
from redraft.placement.canvas_cache import CanvasCache, DenoiseStatic, EncodeStatic
from redraft.sampler.samplers import NEVER, Rule

TEXTS = ("book a table for two at an Italian restaurant in Bergen", "rate this book five of six", "how do i bake bread")
FREE = {"tools": None, "handover_steps": 0}


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture
def launching(engine, monkeypatch):
    """The engine, with graphs."""
    loop = CanvasLoop(engine.model, exact=False, graphs=True, on_encoded=engine._remember)
    monkeypatch.setattr(engine, "_loop", loop)
    return engine


@pytest.fixture(scope="module")
def alone(engine):
    """What each text gives, operator by operator."""
    return [engine.generate(text, seed=seed, **FREE) for seed, text in enumerate(TEXTS)]


@pytest.mark.parametrize("length", [0, 1, 15, 16, 40])
def test_a_static_cache_shows_a_canvas_the_same(engine, length):
    model = engine.model
    generator = torch.Generator().manual_seed(length)
    cache, ids = model.new_cache(2), torch.randint(0, model.config.vocab_size, (2, 40), generator=generator)
    lengths = [length, 40]
    model.encode(ids, cache, lengths)
    canvas = torch.randint(0, model.config.vocab_size, (2, 8), generator=generator)
    expected = model.denoise_hidden(canvas, cache)
    static = CanvasCache(model.config, 2, 64, model.dtype, model.device)
    for row, sequence in enumerate(cache.sequences):
        static.fill(row, sequence)
    found = model.denoise_with(canvas, static.lengths, DenoiseStatic(static))
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    # Another prefix in the same place: what lay there before must not be seen.
    short = model.new_cache(1)
    model.encode(ids[:1, :3], short)
    static.fill(1, short.sequences[0])
    both = KVCache([cache.sequences[0], short.sequences[0]])
    found = model.denoise_with(canvas, static.lengths, DenoiseStatic(static))
    torch.testing.assert_close(found, model.denoise_hidden(canvas, both), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 15, 16, 100])
def test_a_canvas_is_encoded_the_same(engine, length):
    model = engine.model
    L = model.config.canvas_length
    ids = torch.randint(0, model.config.vocab_size, (1, length + 2 * L), generator=torch.Generator().manual_seed(1))
    cache, other = model.new_cache(1), model.new_cache(1)
    encode = pool.Graphs(model).encode
    for piece in ids.split([length, L, L], dim=1):
        expected = model.encode(piece, cache)
        torch.testing.assert_close(encode(piece, other.sequences[0]), expected, atol=2e-4, rtol=1e-4)
    assert cache.sequences[0].length == other.sequences[0].length
    canvas = ids[:, :8]
    found = model.denoise_hidden(canvas, other)
    torch.testing.assert_close(found, model.denoise_hidden(canvas, cache), atol=2e-4, rtol=1e-4)


def test_a_prefix_beyond_the_capacity_is_refused(engine):
    cache = engine.model.new_cache(1)
    engine.model.encode(torch.zeros(1, 9, dtype=torch.long), cache)
    static = CanvasCache(engine.model.config, 1, 8, engine.model.dtype, engine.model.device)
    with pytest.raises(ValueError, match="9 positions do not fit 8"):
        static.fill(0, cache.sequences[0])


def test_texts_and_steps_are_those_of_the_other_form(launching, alone):
    for seed, (text, expected) in enumerate(zip(TEXTS, alone, strict=True)):
        found = launching.generate(text, seed=seed, **FREE)
        assert found.token_ids == expected.token_ids
        assert found.stats.denoising_steps == expected.stats.denoising_steps
    assert len(launching._loop.graphs._graphs) == 1, "one graph serves every length"


def test_requests_that_leave_do_not_disturb_those_that_stay(launching, alone):
    requests = [redraft.Request(prompt=text, options={"seed": seed, **FREE}) for seed, text in enumerate(TEXTS)]
    found = launching.generate_batch(requests)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]
    # They end one after the other, so the batch has had several sizes, and rows have moved between graphs.
    assert len({one.stats.denoising_steps for one in found}) > 1
    assert len(launching._loop.graphs._graphs) > 1


def test_requests_that_take_turns_do_not_disturb_each_other(launching, alone):
    """Each is a batch of one, so all have the same graph, one after the other."""
    streams = [launching.stream(text, seed=seed, **FREE) for seed, text in enumerate(TEXTS)]
    ended = {}
    while len(ended) < len(streams):
        for number, stream in enumerate(streams):
            if number not in ended and isinstance(event := next(stream), Generation):
                ended[number] = event
    assert [ended[number].token_ids for number in range(len(TEXTS))] == [one.token_ids for one in alone]
    assert len(launching._loop.graphs._graphs) == 1


def test_graphs_are_few_however_many_shapes_come(launching, alone, monkeypatch):
    monkeypatch.setattr(pool, "KEPT", 1)
    requests = [redraft.Request(prompt=text, options={"seed": seed, **FREE}) for seed, text in enumerate(TEXTS)]
    found = launching.generate_batch(requests)
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]
    assert len(launching._loop.graphs._graphs) == 1


def test_drafts_are_those_of_the_other_form(launching, engine):
    def drafts(loop):
        engine._loop = loop
        return [event for event in engine.stream(TEXTS[0], seed=0, **FREE) if isinstance(event, Draft)]

    launched = drafts(launching._loop)
    called = drafts(CanvasLoop(engine.model, exact=True, on_encoded=engine._remember))
    assert [(d.step, d.token_ids, d.accepted, d.temperature) for d in launched] == [
        (d.step, d.token_ids, d.accepted, d.temperature) for d in called
    ]
    for one, other in zip(launched, called, strict=True):
        torch.testing.assert_close(torch.tensor(one.entropy_nats), torch.tensor(other.entropy_nats), atol=1e-3, rtol=0)


def test_rules_of_one_launch_differ(launching, engine):
    options = [{"seed": 0, **FREE}] + [
        {"seed": 0, "sampler": "confidence", "threshold": t, **FREE} for t in (0.6, 0.99)
    ]
    requests = [redraft.Request(prompt=TEXTS[0], options=one) for one in options]
    found = launching.generate_batch(requests)
    assert {shape.rows for shape in launching._loop.graphs._graphs} >= {3}, "all of them in one"
    engine._loop = CanvasLoop(engine.model, exact=True, on_encoded=engine._remember)
    for one, given in zip(found, options, strict=True):
        expected = engine.generate(TEXTS[0], **given)
        assert one.token_ids == expected.token_ids
        assert one.stats.denoising_steps == expected.stats.denoising_steps
    assert len({one.stats.denoising_steps for one in found}) == 3


def test_a_sampler_of_ones_own_goes_operator_by_operator(launching):
    rule = Rule(bound=0.1, threshold=NEVER, floor=1, sticky=False, greedy=False)
    expected = launching.generate(TEXTS[0], seed=0, **FREE)
    launching._loop.graphs._graphs.clear()
    found = launching.generate(TEXTS[0], seed=0, sampler=lambda *given: rule(*given), **FREE)
    assert not launching._loop.graphs._graphs
    assert found.token_ids == expected.token_ids
    launching.generate(TEXTS[0], seed=0, sampler=rule, **FREE)
    assert launching._loop.graphs._graphs, "a rule may be given as it is"


def test_what_a_rule_holds_goes_along_from_graph_to_graph(launching, engine):
    """The first of three ends early, and the others move to a smaller graph with what they hold."""
    slow = {"sampler": "confidence", "threshold": 1.0, "floor": 4, "confidence_threshold": 0.0, **FREE}
    requests = [redraft.Request(prompt=text, options={"seed": 3, **slow, "floor": floor})
                for text, floor in zip(TEXTS, (24, 4, 5), strict=False)]  # fmt: skip
    drafts = {}
    running = launching.running()
    prepared = [launching.prepare(request.prompt, **request.options) for request in requests]
    for one in prepared:
        running.add(one)
    while len(drafts) < len(prepared) or not all(isinstance(each[-1], Generation) for each in drafts.values()):
        for one, event in running.step():
            drafts.setdefault(id(one), []).append(event)
    assert len(launching._loop.graphs._graphs) > 1
    for one in prepared:
        kept = [{place for place, taken in enumerate(event.accepted) if taken}
                for event in drafts[id(one)] if isinstance(event, Draft)]  # fmt: skip
        assert all(before <= after for before, after in pairwise(kept))
    engine._loop = CanvasLoop(engine.model, exact=True, on_encoded=engine._remember)
    for one, request in zip(prepared, requests, strict=True):
        expected = engine.generate(request.prompt, **request.options)
        assert drafts[id(one)][-1].token_ids == expected.token_ids
        assert drafts[id(one)][-1].stats.denoising_steps == expected.stats.denoising_steps


def test_several_canvases_and_a_plateau(launching, engine):
    options = {
        "seed": 1,
        "max_new_tokens": 300,
        "plateau_steps": 3,
        "temperature": 1.5,
        "max_denoising_steps": 20,
        **FREE,
    }
    found = launching.generate(TEXTS[0], **options)
    engine._loop = CanvasLoop(engine.model, exact=True, on_encoded=engine._remember)
    expected = engine.generate(TEXTS[0], **options)
    assert found.token_ids == expected.token_ids
    assert (found.stats.plateaus, found.stats.denoising_steps) == (
        expected.stats.plateaus,
        expected.stats.denoising_steps,
    )


def test_a_row_that_is_not_finite_fails_alone(launching, alone, monkeypatch):
    step = StepGraph.step

    def broken(graph):
        graph.cache.values[0][0].fill_(torch.nan)
        return step(graph)

    monkeypatch.setattr(StepGraph, "step", broken)
    requests = [redraft.Request(prompt=text, options={"seed": seed, **FREE}) for seed, text in enumerate(TEXTS)]
    running = launching.running()
    prepared = [launching.prepare(request.prompt, **request.options) for request in requests]
    for one in prepared:
        running.add(one, drafts=False)
    events = running.step()
    assert [(one is prepared[0], event.finish_reason) for one, event in events] == [(True, "error")]
    assert "not finite" in events[0][1].error


def test_launches_are_all_on_the_device_and_ask_it_nothing(monkeypatch):
    """On the meta device, what is made elsewhere does not fit, and what is asked for is not there."""
    # Torch's form sorts assignments on the host; Triton's does not.
    monkeypatch.setattr(feedforward, "experts", lambda x, *_: torch.empty_like(x))
    with torch.device("meta"):
        model = DiffusionGemma(shape_config("full"))
    step = StepGraph(model, batch_size=2, length=256, capacity=512, threshold=1)
    step._step()
    EncodeGraph(model, length=256, capacity=512)._encode()
    with pytest.raises((RuntimeError, NotImplementedError)):
        step.step()


def test_an_encoding_makes_a_mask_for_each_kind_of_layer(engine, monkeypatch):
    model, made = engine.model, []
    make = EncodeStatic._made
    monkeypatch.setattr(EncodeStatic, "_made", lambda self, *given: made.append(given) or make(self, *given))
    length = model.config.canvas_length
    encode, cache = EncodeGraph(model, length=length, capacity=512), model.new_cache(1)
    model.encode(torch.ones(1, 5, dtype=torch.long), cache)
    ids = torch.ones(1, length, dtype=torch.long)
    encode(ids, cache.sequences[0])
    kinds = len({layer.window for layer in model.config.layers})
    assert len(made) == kinds < len(model.config.layers)
    # Anew for the next one, which stands behind more.
    encode(ids, cache.sequences[0])
    assert len(made) == 2 * kinds


class Captured(StepGraph):
    """Counts how often a step is captured, and how often a prefix is copied."""

    shapes: ClassVar[list] = []
    placed: ClassVar[list] = []

    def __init__(self, model, **shape):
        self.shapes.append(shape["batch_size"])
        super().__init__(model, **shape)

    def place(self, row, sequence, **canvas):
        self.placed.append(row)
        super().place(row, sequence, **canvas)


def test_a_batch_that_comes_and_goes_is_captured_four_times(launching, monkeypatch):
    """A scripted arrival: one to eight requests at a time, up and down and up again."""
    monkeypatch.setattr(Captured, "shapes", [])
    monkeypatch.setattr(Captured, "placed", [])
    monkeypatch.setattr(pool, "StepGraph", Captured)
    monkeypatch.setattr(pool, "can_capture", lambda device: True)
    options = {"max_denoising_steps": 6, "confidence_threshold": 1e-30, **FREE}
    expected = [launching.generate(TEXTS[n % 3], seed=n, **options).token_ids for n in range(12)]
    Captured.shapes.clear(), Captured.placed.clear()
    graphs = pool.Graphs(launching.model)
    monkeypatch.setattr(launching._loop, "graphs", graphs)
    # The step at which each request comes.
    arrivals = [0, 1, 2, 2, 3, 3, 4, 4, 12, 13, 13, 14]
    running, replies, number = launching.running(), {}, {}
    for tick in range(40):
        for request, at in enumerate(arrivals):
            if at == tick:
                prepared = launching.prepare(TEXTS[request % 3], seed=request, **options)
                number[id(prepared)] = request
                running.add(prepared, drafts=False)
        for prepared, event in running.step():
            if isinstance(event, Generation):
                replies[number[id(prepared)]] = event.token_ids
    assert [replies[n] for n in range(12)] == expected
    assert sorted(Captured.shapes) == [1, 2, 4, 8]
    # A canvas moves when its batch meets another graph, not whenever somebody comes or goes.
    assert len(Captured.placed) < 40, len(Captured.placed)
    assert len(graphs._graphs) == 4


def test_shapes_that_take_turns_are_all_kept(launching, monkeypatch):
    """Requests of several clients, each of a shape of its own, one step each by turns."""
    monkeypatch.setattr(Captured, "shapes", [])
    monkeypatch.setattr(pool, "StepGraph", Captured)
    options = {"max_denoising_steps": 10, "confidence_threshold": 1e-30, **FREE}
    requests = [
        redraft.Request(prompt=TEXTS[0], options={"seed": 1, "stability_threshold": n, **options}) for n in (1, 2, 3, 4)
    ]
    launching.generate_batch(requests)
    assert len(Captured.shapes) == 4


def test_where_nothing_is_captured_no_row_is_idle(launching, monkeypatch):
    monkeypatch.setattr(Captured, "shapes", [])
    monkeypatch.setattr(pool, "StepGraph", Captured)
    requests = [redraft.Request(prompt=text, options={"seed": 1, "max_denoising_steps": 2, **FREE}) for text in TEXTS]
    launching.generate_batch(requests)
    assert Captured.shapes == [3]


def test_what_is_no_number_is_gone_with_its_prefix(engine):
    model = engine.model
    static = CanvasCache(model.config, 1, 64, model.dtype, model.device)
    for layer in range(len(static.keys)):
        static.keys[layer].fill_(float("nan"))
        static.values[layer].fill_(float("nan"))
    cache = model.new_cache(1)
    model.encode(torch.ones(1, 5, dtype=torch.long), cache)
    static.fill(0, cache.sequences[0])
    found = model.denoise_with(torch.ones(1, 8, dtype=torch.long), static.lengths, DenoiseStatic(static))
    assert found.isfinite().all()


def test_what_is_kept_is_no_more_than_twice_the_largest(engine, monkeypatch):
    class Empty(Captured):
        def __init__(self, model, **shape):
            self.shape = shape

        def close(self):
            pass

    monkeypatch.setattr(pool, "StepGraph", Empty)
    graphs = pool.Graphs(engine.model)
    for rows in (1, 2, 4, 8):
        for capacity in (512, 1024, 2048, 4096):
            graphs._seats(pool._Shape(rows=rows, length=48, threshold=1, capacity=capacity))
            sizes = [graphs._bytes[shape] for shape in graphs._graphs]
            assert sum(sizes) <= 2 * max(sizes) or len(sizes) <= pool.LEAST
    # Of one batch that grew, as of one conversation, all are kept.
    graphs = pool.Graphs(engine.model)
    for rows in (1, 2, 4, 8):
        graphs._seats(pool._Shape(rows=rows, length=48, threshold=1, capacity=4096))
    assert len(graphs._graphs) == 4
