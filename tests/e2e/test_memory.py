"""Requests take part in the steps as long as there is memory for them, not only places."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import redraft
from redraft.core.results import Generation
from servers import ask, serving_with

TEXT = "tell me about the weather in Oslo and then in Paris"
# Several canvases, none of which ends the reply.
LONG = {"max_tokens": 480, "diffusion": {"steps": 8}, "seed": 1}


def chat(port: int, **more) -> tuple[int, dict]:
    body = {"model": "mini", "messages": [{"role": "user", "content": TEXT}], **more}
    status, answer = ask(port, "POST", "/v1/chat/completions", body)
    return status, json.loads(answer)


def wanted(**options) -> int:
    engine = redraft.load("mini", dtype="float32", threads=1)
    return engine.prepare(TEXT, tool_choice="none", **options).memory_bytes


def running(port: int) -> float:
    page = ask(port, "GET", "/metrics")[1].decode()
    return float(re.search(r"^redraft_running (\S+)", page, re.MULTILINE)[1])


def test_what_is_reserved_is_enough_and_not_much_more():
    engine = redraft.load("mini", dtype="float32", threads=1)
    for length in (1, 30, 300, 900):
        prepared = engine.prepare([5] * length, max_new_tokens=200, mode="autoregressive", temperature=1.0, seed=3)
        together = engine.running()
        together.add(prepared)
        while not any(isinstance(event, Generation) for _, event in together.step()):
            pass
        cache = prepared.sequence.cache
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        used = prepared.sequence.cache.bytes_at(cache.length, 0)
        assert held <= prepared.memory_bytes
        assert used <= held * 2.5


def test_a_request_that_can_never_run_is_refused_by_its_field():
    most = wanted(max_new_tokens=480)
    with serving_with(request_bytes=most - 1) as (_, port):
        status, answer = chat(port, **LONG)
        error = answer["error"]
        assert (status, error["param"], error["code"]) == (400, "max_tokens", "request_too_large")
        assert "MB" in error["message"]
        assert chat(port, max_tokens=48)[0] == 200


def test_memory_bounds_what_runs_together_and_what_waits():
    most = wanted(max_new_tokens=480)
    # Room for two and a half that run, and as much to wait.
    slow = (
        "import time; tick = engine._loop.tick\n"
        "engine._loop.tick = lambda *a, **k: (time.sleep(0.02), tick(*a, **k))[1]"
    )
    with serving_with(slow, request_bytes=5 * most // 2, max_running=8, max_waiting=8) as (_, port):
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(chat, port, **LONG) for _ in range(10)]
            seen = []
            while not all(one.done() for one in asked):
                seen.append(running(port))
                time.sleep(0.03)
        answers = [one.result() for one in asked]
        assert max(seen) == 2
        refused = [answer for status, answer in answers if status == 429]
        assert len(refused) == 5
        assert {answer["error"]["code"] for answer in refused} == {"queue_full"}
        assert [status for status, _ in answers].count(200) == 5
        # All is given back.
        assert chat(port, **LONG)[0] == 200
