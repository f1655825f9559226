"""Processes that share the requests write the same texts, and one that dies takes only its own requests along."""

from __future__ import annotations

import os
import signal

import pytest

import redraft
from redraft import Generation, Request
from redraft.engine.workers import KEPT
from tuned import JAZZ, write_two

TOOL = {"name": "SetTimer", "parameters": {"type": "object", "properties": {"minutes": {"type": "integer"}}}}
REQUESTS = [
    Request(prompt="play some jazz by Nina Simone", options={"seed": 1}),
    Request(prompt="what is the weather in Oslo", options={"seed": 2, "logprobs": True}),
    Request(prompt="how do i bake bread", options={"seed": 3, "tools": None, "stop": ["music"]}),
    Request(prompt="wake me in ten", options={"seed": 4, "tools": [TOOL], "tool_choice": "required"}),
    Request(prompt="wake me in two", options={"seed": 5, "tools": [TOOL], "tool_choice": "required"}),
    Request(prompt="find the game Myst", options={"seed": 6, "mode": "autoregressive", "temperature": 0}),
]


@pytest.fixture(scope="module")
def shared():
    engine = redraft.load("mini", dtype="float32", threads=2, workers=2)
    yield engine
    engine.running().close()


@pytest.fixture(scope="module")
def alone():
    return redraft.load("mini", dtype="float32", threads=1)


def plain(generation: Generation):
    return generation.raw, generation.finish_reason, generation.seed, generation.logprobs, generation.tool_calls


def finished(running, wanted: int):
    """Events until so many requests have ended."""
    seen = []
    for _ in range(4000):
        seen += running.step()
        if sum(isinstance(event, Generation) for _, event in seen) >= wanted:
            return seen
    raise AssertionError("they never ended")


def test_they_write_what_one_process_writes(shared, alone):
    expected = [plain(alone.generate(request.prompt, **request.options)) for request in REQUESTS]
    assert [plain(reply) for reply in shared.generate_batch(REQUESTS)] == expected


def test_infills_drafts_and_conversations(shared, alone):
    running = shared.running()
    hole = shared.prepare_infill("It is [[...]] o'clock.", seed=0, max_new_tokens=30)
    running.add(hole, drafts=False)
    got = finished(running, 1)[-1][1]
    assert got.filled == alone.infill("It is [[...]] o'clock.", seed=0, max_new_tokens=30).filled
    first = shared.prepare("find the game Myst", seed=0)
    running.add(first)
    events = [event for prepared, event in finished(running, 1) if prepared is first]
    assert [type(event).__name__ for event in events[-2:]] == ["Commit", "Generation"]
    assert {type(event).__name__ for event in events[:-2]} == {"Draft"}
    turns = [{"role": "user", "content": "find the game Myst"}, {"role": "assistant", "content": events[-1].text}]
    second = shared.prepare([*turns, {"role": "user", "content": "and Riven"}], seed=0)
    running.add(second)
    assert finished(running, 1)[-1][1].stats.cached_tokens > 0, "it went where its conversation had been"


def test_more_constraints_than_a_worker_keeps(shared):
    short = {"seed": 0, "max_denoising_steps": 2}
    asked = [
        Request(prompt="x", options={**short, "response_format": {"type": "choice", "choices": [f"no {i}"]}})
        for i in range(2 * KEPT + 4)
    ]
    replies = shared.generate_batch([*asked, asked[0]])
    assert [reply.raw for reply in replies] == [*(f"no {i}" for i in range(len(asked))), "no 0"]


def test_cancelled_ones_end(shared):
    running = shared.running()
    ones = [shared.prepare(request.prompt, **request.options) for request in REQUESTS]
    for one in ones:
        running.add(one)
    for one in ones[::2]:
        running.cancel(one)
    ended = {id(one): event for one, event in finished(running, len(ones)) if isinstance(event, Generation)}
    assert len(ended) == len(ones)
    assert ended[id(ones[0])].finish_reason == "cancelled"
    assert ended[id(ones[1])].finish_reason in ("stop", "tool_calls")


def test_adapters_go_to_the_processes_that_need_them(shared, alone, tmp_path):
    directories, options = write_two(alone.model, tmp_path), {"seed": 0, "logprobs": True}
    for engine in (shared, alone):
        for name, place in directories.items():
            engine.adapters.load(name, place)
    said = {name: plain(alone.adapters[name].generate(JAZZ, **options)) for name in directories}
    said[None] = plain(alone.generate(JAZZ, **options))
    assert len(set(map(repr, said.values()))) == 3
    running = shared.running()

    def replies(*asked):
        for one in asked:
            running.add(one, drafts=False)
        found = {id(one): event for one, event in finished(running, len(asked)) if isinstance(event, Generation)}
        return [plain(found[id(one)]) for one in asked]

    names = [*said] * 2
    asked = [(shared if name is None else shared.adapters[name]).prepare(JAZZ, **options) for name in names]
    assert replies(*asked) == [said[name] for name in names]
    old = shared.adapters["first"].prepare(JAZZ, **options)
    shared.adapters.unload("first")
    shared.adapters.load("first", directories["second"])
    new = shared.adapters["first"].prepare(JAZZ, **options)
    assert replies(old, new) == [said["first"], said["second"]]
    assert replies(shared.prepare(JAZZ, **options)) == [said[None]]
    assert all(old.sequence.variant.number not in worker.variants for worker in running._workers)


def test_a_process_that_dies_takes_only_its_own_along(shared, alone):
    running = shared.running()
    ones = [shared.prepare(request.prompt, **request.options) for request in REQUESTS[:4]]
    for one in ones:
        running.add(one)
    victim = running._workers[0]
    assert len(victim.requests) == 2
    os.kill(victim._process.pid, signal.SIGKILL)
    ended = {id(one): event for one, event in finished(running, 4) if isinstance(event, Generation)}
    reasons = [ended[id(one)].finish_reason for one in ones]
    assert reasons.count("error") == 2
    assert "ended" in next(event.error for event in ended.values() if event.error)
    again = shared.generate_batch(REQUESTS[:2])
    assert [plain(reply) for reply in again] == [plain(alone.generate(r.prompt, **r.options)) for r in REQUESTS[:2]]
    os.kill(running._workers[1]._process.pid, signal.SIGKILL)
    running._workers[1]._process.join()
    assert [reply.finish_reason for reply in shared.generate_batch(REQUESTS[:2])].count("error") == 0
