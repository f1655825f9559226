"""Many clients at once, some of them gone before their answer: every request ends, nothing is left behind, and company
changes no text. `make test-full` sends a thousand requests."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import redraft
from servers import KEY, ask, serving, wait_until

TEXTS = ["play some jazz by Nina Simone", "what is the weather in Oslo", "how do i bake bread", "find the game Myst"]
TEXTS += ["add this song to my running playlist", "read me this again: " + "and then it rained " * 60]
FULL = bool(os.environ.get("REDRAFT_FULL_TESTS"))
CLIENTS, COUNT = (64, 1000) if FULL else (24, 160)


def bodies() -> list[dict]:
    """Different ones, long and short."""
    found = []
    for seed, text in enumerate(TEXTS * 2):
        options = {"mode": "autoregressive"} if seed % 6 == 1 else {"steps": 2 + seed % 5}
        found.append({
            "model": "mini", "messages": [{"role": "user", "content": text}], "seed": seed, "max_tokens": 20 + 8 * seed,
            "diffusion": options, "stream": seed % 2 == 0,
        })  # fmt: skip
    return found


def texts_alone() -> list[str]:
    engine = redraft.load("mini", dtype="float32", threads=1)
    return [
        engine.generate(
            body["messages"],
            seed=body["seed"],
            max_new_tokens=body["max_tokens"],
            **{"max_denoising_steps" if name == "steps" else name: value for name, value in body["diffusion"].items()},
        ).raw
        for body in bodies()
    ]


def resident_mb(pid: int) -> float:
    """Of a process and its children."""
    # A process is listed with the thread that started it.
    children = [int(p) for path in Path(f"/proc/{pid}/task").glob("*/children") for p in path.read_text().split()]
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(map(resident_mb, children))


def one(port: int, body: dict, hang_up_s: float | None) -> str | None:
    """The reply as it was written; None for a client that hung up after so many seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    try:
        while True:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            if hang_up_s is not None:
                time.sleep(hang_up_s)
                return None
            answer = connection.getresponse()
            data = answer.read().decode()
            if answer.status != 429:
                break
            assert answer.headers["retry-after"]
            time.sleep(0.1)
        assert answer.status == 200, data
        if not body["stream"]:
            return json.loads(data)["redraft"][0]["raw"]
        assert data.endswith("data: [DONE]\n\n")
        chunks = [json.loads(part[6:]) for part in data.split("\n\n") if part.startswith("data: {")]
        return next(chunk["redraft"]["raw"] for chunk in chunks if "raw" in chunk.get("redraft", {}))
    finally:
        connection.close()


@pytest.mark.parametrize("workers", [1, 2] if FULL else [2])
def test_many_clients(workers):
    expected, requests = texts_alone(), bodies()
    rng = random.Random(7)
    plan = [(i % len(requests), rng.uniform(0, 1.5) if rng.random() < 0.2 else None) for i in range(COUNT)]
    resident: list[float] = []
    arguments = ("--threads", "2", "--workers", str(workers), "--max-waiting", "40")
    with serving(*arguments) as (process, port):
        done, lock = 0, threading.Lock()

        def run(item: tuple[int, float | None]) -> None:
            nonlocal done
            place, hang_up_s = item
            got = one(port, requests[place], hang_up_s)
            assert got is None or got == expected[place], f"request {place} differs in company"
            with lock:
                done += 1
                if done in (COUNT // 2, COUNT):
                    resident.append(resident_mb(process.pid))

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(run, plan))
        wait_until(lambda: b"redraft_queue 0.0" in ask(port, "GET", "/metrics")[1], 60)
        assert b"redraft_running 0.0" in ask(port, "GET", "/metrics")[1]
        threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
        assert threads < 64, f"{threads} threads are left"
        print(f"\n{COUNT} requests, {CLIENTS} clients, {workers} workers: resident {resident} MB, {threads} threads")
        assert resident[1] < (1.05 if FULL else 1.15) * resident[0]
        # Nothing stops before its last step, so that all of them are there at once.
        whole = {"steps": 32, "confidence_threshold": 0}
        pattern = {"type": "regex", "pattern": "[a-z ]{150}"}
        long = {"response_format": pattern, "max_tokens": 400, "diffusion": whole}
        with ThreadPoolExecutor(8) as pool:
            last = [pool.submit(one, port, {**requests[0], **long}, None) for _ in range(8)]
            wait_until(lambda: b"redraft_queue 8.0" in ask(port, "GET", "/metrics")[1], 20)
            process.terminate()
            assert {len(future.result() or "") for future in last} == {150}, "what runs may finish"
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_killed_and_started_again():
    with serving("--threads", "1") as (process, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/chat/completions", json.dumps({**bodies()[0], "stream": True}), headers)
        connection.getresponse()
        process.kill()
        process.wait()
        connection.close()
        with serving("--threads", "1", port=port) as (_, again):
            assert again == port
            assert ask(port, "GET", "/ready", key=None)[0] == 200
            assert one(port, bodies()[0], None)
