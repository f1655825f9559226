"""Steps under a constraint whose model's part is one launch; a CPU calls the same work, by the same host code."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import redraft
from pretended import Pretended, pretending
from redraft.bench.shapes import shape_config
from redraft.core.automaton import Parts
from redraft.core.errors import OptionError
from redraft.engine import beside, graph
from redraft.engine import load as loading
from redraft.engine.beside import Beside, step_bytes
from redraft.engine.graph import StepGraph
from redraft.engine.graphs import Graphs
from redraft.engine.launch import Launch
from redraft.engine.loop import CanvasLoop
from redraft.model import feedforward
from redraft.model.model import DiffusionGemma
from redraft.text.constraint import ConstraintFactory

TEXT = "Play the new Daft Punk album"
TOOLS = [
    {
        "name": "PlayMusic",
        "parameters": {
            "type": "object",
            "properties": {
                "artist": {"type": "string"},
                "sort": {"enum": ["new", "best"]},
                "year": {"type": "integer", "minimum": 1900, "maximum": 2030},
            },
            "required": ["artist"],
        },
    },
    {"name": "Stop", "parameters": {"type": "object", "properties": {}}},
]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "rooms": {"type": "integer", "minimum": 3}},
    "required": ["city", "rooms"],
}
FREE = {"tools": None}
WANTED = {
    "choice": {"response_format": {"type": "choice", "choices": ["yes please", "no"]}},
    "schema": {"response_format": {"type": "json_schema", "schema": CITY}},
    "tools": {"tools": TOOLS, "tool_choice": "required"},
    "perhaps tools": {"tools": TOOLS},
    "greedy": {"response_format": {"type": "regex", "pattern": "[a-z ]{5,20}"}, "temperature": 0.0},
    "several canvases": {
        "response_format": {
            "type": "json_schema",
            "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 25},
        },
        "max_denoising_steps": 4,
        "max_new_tokens": 200,
    },
    "plateau": {"tools": TOOLS, "plateau_steps": 2, "confidence_threshold": 0.0, "max_denoising_steps": 12},
    "verified": {"response_format": {"type": "choice", "choices": ["yes please", "no"]}, "mode": "verified"},
    "confidence": {"tools": TOOLS, "tool_choice": "required", "sampler": "confidence", "confidence_threshold": 0.0},
    "confidence over canvases": {
        "response_format": {
            "type": "json_schema",
            "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 25},
        },
        "sampler": "confidence",
        "threshold": 0.8,
        "floor": 3,
        "max_new_tokens": 200,
    },
    "confidence, narrowed": {
        "response_format": {"type": "json_schema", "schema": CITY},
        "sampler": "confidence",
        "threshold": 0.3,
        "confidence_threshold": 0.0,
    },
    "free confidence": {**FREE, "sampler": "confidence"},
    "free": FREE,
}
COUNTED = ("denoising_steps", "disagreements", "plateaus", "canvases")


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture
def launching(engine, monkeypatch):
    """The engine, with graphs."""
    monkeypatch.setattr(engine, "_loop", with_graphs(engine))
    return engine


@pytest.fixture(scope="module")
def alone(engine):
    """What each gives, operator by operator."""
    return {name: engine.generate(TEXT, seed=7, **options) for name, options in WANTED.items()}


def with_graphs(engine) -> CanvasLoop:
    return CanvasLoop(engine.model, exact=False, graphs=True, on_encoded=engine._remember)


def same(found, expected) -> None:
    assert found.token_ids == expected.token_ids
    assert found.finish_reason == expected.finish_reason != "error"
    for name in COUNTED:
        assert getattr(found.stats, name) == getattr(expected.stats, name), name


@pytest.mark.parametrize("name", WANTED)
def test_replies_are_those_of_the_other_form(launching, alone, name):
    same(launching.generate(TEXT, seed=7, **WANTED[name]), alone[name])
    held = [shape.held for shape in launching._loop.graphs._graphs]
    assert held == [not name.startswith("free")]


def test_free_and_constrained_canvases_share_a_launch(launching, alone, monkeypatch):
    sizes, seats = {True: set(), False: set()}, Graphs._seats
    monkeypatch.setattr(
        Graphs, "_seats", lambda self, shape: sizes[shape.held].add(shape.rows) or seats(self, shape)
    )  # fmt: skip
    requests = [redraft.Request(prompt=TEXT, options={"seed": 7, **options}) for options in WANTED.values()]
    for found, expected in zip(launching.generate_batch(requests), alone.values(), strict=True):
        same(found, expected)
    assert max(sizes[True]) == len(WANTED)
    assert not sizes[False]
    both = launching.generate_batch([requests[list(WANTED).index(name)] for name in ("choice", "free")])
    same(both[1], alone["free"])
    assert sizes[False] == {1}, "once the one under a constraint has ended, nothing is between"


def test_canvases_that_take_turns_do_not_disturb_each_other(engine, monkeypatch):
    """Each is a batch of one, so all have the same row, one after the other; calls of mini's own tools settle."""
    seeds, ended = range(3), {}
    expected = [engine.generate(TEXT, seed=seed, tool_choice="required") for seed in seeds]
    assert max(one.stats.denoising_steps for one in expected) < 48
    monkeypatch.setattr(engine, "_loop", with_graphs(engine))
    streams = [engine.stream(TEXT, seed=seed, tool_choice="required") for seed in seeds]
    while len(ended) < len(seeds):
        for seed in seeds:
            if seed not in ended and isinstance(event := next(streams[seed]), redraft.Generation):
                ended[seed] = event
    assert len(engine._loop.graphs._graphs) == 1
    for seed in seeds:
        same(ended[seed], expected[seed])


def test_drafts_show_what_was_chosen(launching, engine):
    def drafts(loop):
        engine._loop = loop
        events = engine.stream(TEXT, seed=7, **WANTED["schema"])
        return [event for event in events if isinstance(event, redraft.Draft)]

    found = drafts(launching._loop)
    expected = drafts(CanvasLoop(engine.model, exact=True, on_encoded=engine._remember))
    assert [(d.token_ids, d.accepted) for d in found] == [(d.token_ids, d.accepted) for d in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.tensor(one.entropy_nats), torch.tensor(other.entropy_nats), atol=1e-3, rtol=0)


def test_broad_classes_and_a_narrower_constraint(monkeypatch):
    """Of a vocabulary whose classes are summed; the rule on `year` is broken by some draft, and narrows its step."""
    monkeypatch.setattr("redraft.core.automaton.EXPLICIT", 10)
    monkeypatch.setattr("redraft.core.automaton.BROAD_LEAST", 150)
    engine, narrowed, broad = redraft.load("mini", dtype="float32", threads=1), [], []
    narrow, score = redraft.engine.sequence.Sequence.narrow, Beside._scored
    monkeypatch.setattr(
        redraft.engine.sequence.Sequence,
        "narrow",
        lambda self, ids: narrow(self, ids) and (narrowed.append(self) or True),
    )
    monkeypatch.setattr(
        Beside, "_scored", lambda self, parts, *given: broad.append(len(parts.broad)) or score(self, parts, *given)
    )
    names = ("schema", "tools", "greedy", "several canvases")
    expected = [engine.generate(TEXT, seed=7, **WANTED[name]) for name in names]
    assert narrowed, "some step broke a rule"
    assert not broad
    before = len(narrowed)
    engine._loop = with_graphs(engine)
    found = [engine.generate(TEXT, seed=7, **WANTED[name]) for name in names]
    assert len(narrowed) == 2 * before
    assert max(broad) > 0
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_what_is_pinned_goes_operator_by_operator(launching, engine):
    ids = engine.tokenizer.encode("yes please")
    options = {"seed": 1, "initial_canvas": ids, "pinned": (0,), **WANTED["choice"]}
    found = launching.generate(TEXT, **options)
    assert found.text == "yes please"
    assert not launching._loop.graphs._graphs


class Counted(Launch):
    """Counts what is launched, by the name of its work."""

    launched: ClassVar[list[str]] = []

    def __init__(self, work, *given):
        self.name = work.__name__
        super().__init__(work, *given)

    def __call__(self):
        self.launched.append(self.name)
        super().__call__()


def test_the_models_part_is_one_launch(launching, monkeypatch):
    monkeypatch.setattr(Counted, "launched", [])
    monkeypatch.setattr(graph, "Launch", Counted)
    inside, forward = [], DiffusionGemma.denoise_with
    monkeypatch.setattr(
        DiffusionGemma, "denoise_with", lambda self, *given: inside.append(1) or forward(self, *given)
    )  # fmt: skip
    found = launching.generate(TEXT, seed=7, **WANTED["tools"])
    assert Counted.launched == ["_find"] * found.stats.denoising_steps
    assert len(inside) == found.stats.denoising_steps, "no forward is beside it"


def test_an_automaton_that_comes_again_is_captured_if_it_walks_the_vocabulary(monkeypatch):
    monkeypatch.setattr("redraft.core.automaton.EXPLICIT", 10)
    monkeypatch.setattr(Counted, "launched", [])
    monkeypatch.setattr(beside, "Launch", Counted)
    monkeypatch.setattr(beside, "WORTH", 3)
    for least, expected in ((150, True), (10**6, False)):
        monkeypatch.setattr("redraft.core.automaton.BROAD_LEAST", least)
        engine = redraft.load("mini", dtype="float32", threads=1)
        engine._loop = with_graphs(engine)
        Counted.launched.clear()
        options = {**WANTED["tools"], "confidence_threshold": 0.0, "max_denoising_steps": 12}
        engine.generate(TEXT, seed=7, **options)
        assert (len(Counted.launched) > 3) == expected
        assert set(Counted.launched) <= {"run"}


def test_automata_are_forgotten(engine, monkeypatch):
    monkeypatch.setattr(beside, "KEPT", 2)
    whole, hidden = Beside(engine.model), torch.zeros(3, engine.model.config.hidden_size)
    V = engine.model.config.vocab_size
    several = [Parts.of(np.arange(V).astype(np.int32) % 7 - 1, np.array([], np.int64), 6) for _ in range(3)]
    walks = [whole._scored(parts, hidden, 0.5) for parts in several]
    assert whole._scored(several[2], hidden, 0.5) is walks[2]
    assert whole._scored(several[0], hidden, 0.5) is not walks[0]
    assert len(whole._scorings) == 2


def test_a_rule_that_leaves_no_end_fails_its_reply_alone(launching, alone, monkeypatch):
    def refuse(*_):
        raise OptionError("too much to hold")

    monkeypatch.setattr(ConstraintFactory, "narrowed", refuse)
    requests = [redraft.Request(prompt=TEXT, options={"seed": 7, **WANTED[name]}) for name in ("tools", "free")]
    prepared = [launching.prepare(request.prompt, **request.options) for request in requests]
    running, found = launching.running(), {}
    for one in prepared:
        running.add(one)
    while len(found) < 2:
        found |= {id(one): event for one, event in running.step() if isinstance(event, redraft.Generation)}
    failed, other = (found[id(one)] for one in prepared)
    assert failed.finish_reason == "error"
    assert "cannot be brought to an end that matches: too much to hold" in failed.error
    assert other.token_ids == alone["free"].token_ids


def test_a_row_that_is_not_finite_fails_alone(launching, alone, monkeypatch):
    find = StepGraph.find

    def broken(self):
        self.cache.values[0][0].fill_(torch.nan)
        find(self)

    monkeypatch.setattr(StepGraph, "find", broken)
    prepared = [launching.prepare(TEXT, seed=7, **WANTED[name]) for name in ("choice", "schema")]
    running, found = launching.running(), {}
    for one in prepared:
        running.add(one, drafts=False)
    found = {id(one): event for one, event in running.step()}
    assert found[id(prepared[0])].finish_reason == "error"
    assert "not finite" in found[id(prepared[0])].error
    assert id(prepared[1]) not in found


class Copies(TorchDispatchMode):
    """Copies between a pretended device and the host."""

    def __init__(self):
        super().__init__()
        self.down, self.up = [], []

    def __torch_dispatch__(self, operator, types, arguments=(), options=None):
        given = next((x for x in arguments if isinstance(x, torch.Tensor)), None)
        if operator is torch.ops.aten.copy_.default:
            target, given = arguments[0].device, arguments[1]
        else:
            target = (options or {}).get("device")
        if given is not None and target is not None and torch.device(target).type != given.device.type:
            (self.down if isinstance(given, Pretended) else self.up).append(given.nbytes)
        return operator(*arguments, **(options or {}))


class Asked(TorchFunctionMode):
    """What is asked of a pretended device without a tensor's being copied."""

    asking: ClassVar[set] = {getattr(torch.Tensor, name) for name in ("tolist", "item", "__int__", "__float__")}

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function in self.asking | {torch.Tensor.__bool__, torch.nonzero} and isinstance(arguments[0], Pretended):
            self.seen.append(function.__name__)
        return function(*arguments, **(options or {}))


def test_one_copy_goes_down_and_one_up(monkeypatch):
    """On a device that is not there, and has no float64."""
    monkeypatch.setattr(loading, "in_passing", lambda work: work())
    seen, choose = [], Beside.choose

    def counted(self, graph, row, sequence, state, temperature):
        parts = sequence.constraint.automaton.parts
        is_new = (parts, state.length) not in self._scorings
        with Asked() as asked, Copies() as copies:
            found = choose(self, graph, row, sequence, state, temperature)
        if not is_new and parts is sequence.constraint.automaton.parts:
            seen.append((state.length, len(parts.ids), copies.down, copies.up, asked.seen))
        return found

    monkeypatch.setattr(Beside, "choose", counted)
    with pretending("mps", (torch.float64,)):
        engine = redraft.load("mini", device="mps", dtype="float32")
        engine.generate(TEXT, seed=7, **WANTED["choice"], confidence_threshold=0.0, max_denoising_steps=3)
    assert len(seen) >= 2
    for length, explicit, down, up, asked in seen:
        expected = step_bytes(length, explicit, 0)
        assert ([*down], [*up], asked) == ([expected[0]], [expected[1]], [])


@pytest.mark.parametrize(
    ("explicit", "broad", "down"), [(58, 0, 64_512), (1075, 2, 1_122_304), (7045, 12, 7_317_504)], ids=str
)
def test_bytes_at_the_released_vocabulary(explicit, broad, down):
    """Of an integer, of two strings and an integer, and of a string of at most 12 characters, as docs/log.md has it."""
    assert step_bytes(256, explicit, broad) == (down, 6144)


def test_all_of_the_models_part_is_on_the_device_and_asks_it_nothing(monkeypatch):
    """On the meta device, what is made elsewhere does not fit, and what is asked for is not there."""
    monkeypatch.setattr(feedforward, "experts", lambda x, *_: torch.empty_like(x))
    with torch.device("meta"):
        model = DiffusionGemma(shape_config("full"))
    step = StepGraph(model, batch_size=2, length=256, capacity=512, threshold=1, held=True)
    step.find()
    step.end()
    V = model.config.vocab_size
    for broad in ([], [0, 2]):
        parts = Parts.of((np.arange(V) % 5).astype(np.int32), np.array(broad, np.int64), 5)
        walk = model.walk(parts, step.hidden[0])
        walk.heat(0.5)
        walk.run()
        assert {statistic.device.type for statistic in walk.statistics()} == {"meta"}
    with pytest.raises((RuntimeError, NotImplementedError)):
        step.verdicts()
