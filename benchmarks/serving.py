"""The server under one client and under many, side by side; what a request costs over the engine; an idle server.

python benchmarks/serving.py --requests 40 --rounds 3 --out serving.json

Requests are those of SNIPS' kind below, with seeds, so that every reply is checked against the engine's own. The client
is a process of its own on the same machine: on few cores it takes its share of them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redraft

KEY = "benchmark"
REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]
TEXTS = (
    "add the new Daft Punk album to my Sunday morning playlist",
    "what is the weather in Oslo tomorrow morning",
    "book a table for two at an Italian restaurant in Bergen",
    "play something by Nina Simone on Spotify",
    "rate this book five of six",
    "when is Blade Runner showing at the nearest cinema",
    "find the game Myst",
    "how do i bake bread",
)


def main() -> None:
    """Starts a server of mini, measures, and writes what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=40, help="of each round and number of clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    # A request has one thread there, too.
    engine = redraft.load("mini", dtype="float32", threads=1)
    expected = {seed: engine.generate(_text(seed), seed=seed) for seed in range(arguments.requests)}
    command = [*REDRAFT, "serve", "--port", "0", "--api-key", KEY, "--dtype", "float32"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = re.search(r":(\d+)/#key=", next(line for line in server.stderr if "http://" in line))
        assert found
        measured = _measure(int(found[1]), server.pid, arguments, engine, expected)
    finally:
        server.terminate()
        server.wait(60)
    print(json.dumps(measured, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def _measure(port: int, pid: int, arguments: Any, engine: Any, expected: dict[int, Any]) -> dict[str, Any]:
    rounds: dict[int, list[float]] = {1: [], arguments.clients: []}
    first: dict[int, list[float]] = {1: [], arguments.clients: []}
    _many(port, arguments.clients, list(expected)[: 2 * arguments.clients])
    for _ in range(arguments.rounds):
        for clients, rates in rounds.items():
            began = time.perf_counter()
            replies = _many(port, clients, list(expected))
            rates.append(len(replies) / (time.perf_counter() - began))
            for seed, reply in replies:
                assert reply["redraft"][0]["raw"] == expected[seed].raw, f"seed {seed} differs from the engine's own"
                first[clients].append(reply["redraft"][0]["stats"]["time_to_first_canvas_s"])
    ratios = [many / one for one, many in zip(*rounds.values(), strict=True)]
    return {
        "requests_per_second": {str(clients): [round(rate, 2) for rate in rates] for clients, rates in rounds.items()},
        "ratio": {"each round": [round(ratio, 2) for ratio in ratios], "median": round(statistics.median(ratios), 2)},
        "time_to_first_canvas_s": {str(clients): _percentiles(values) for clients, values in first.items()},
        "overhead_ms_quartiles": _overhead(port, engine),
        "idle_cpu_share": _idle(pid),
    }


def _overhead(port: int, engine: Any, pairs: int = 40, pause_s: float = 0.05) -> dict[str, Any]:
    """What HTTP adds to a request in ms: pairs of one over HTTP and the same one in this process, turn about.

    Which comes first alternates, and a pause between them lets the other process' threads stop spinning.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    asked = {"http": lambda: _ask(connection, 3), "engine": lambda: engine.generate(_text(3), seed=3)}
    took: dict[str, list[float]] = {name: [] for name in asked}
    for pair in range(pairs):
        for name in sorted(asked, reverse=pair % 2 == 1):
            time.sleep(pause_s)
            began = time.perf_counter()
            asked[name]()
            took[name].append(1e3 * (time.perf_counter() - began))
    added = [over - own for over, own in zip(took["http"], took["engine"], strict=True)]
    figures = {**took, "difference": added}
    return {name: [round(cut, 2) for cut in statistics.quantiles(values, n=4)] for name, values in figures.items()}


def _idle(pid: int, seconds: float = 10) -> float:
    """CPU seconds per second of a server, its workers included, that nobody asks anything."""
    before = _cpu_s(pid)
    time.sleep(seconds)
    return round((_cpu_s(pid) - before) / seconds, 4)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(
        _cpu_s(int(child)) for child in children
    )


def _many(port: int, clients: int, seeds: list[int]) -> list[tuple[int, dict[str, Any]]]:
    """Every seed's request, by so many clients at once; each client has one connection."""

    def client(number: int) -> list[tuple[int, dict[str, Any]]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        return [(seed, _ask(connection, seed)) for seed in seeds[number::clients]]

    with ThreadPoolExecutor(clients) as pool:
        return [reply for replies in pool.map(client, range(clients)) for reply in replies]


def _ask(connection: http.client.HTTPConnection, seed: int) -> dict[str, Any]:
    body = {"model": "mini", "messages": [{"role": "user", "content": _text(seed)}], "seed": seed}
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    data = json.loads(answer.read())
    assert answer.status == 200, data
    return data


def _text(seed: int) -> str:
    return TEXTS[seed % len(TEXTS)]


def _percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3)}


if __name__ == "__main__":
    main()
