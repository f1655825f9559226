"""The server under one client and under many, side by side; what a request costs over the engine; an idle server.

    python benchmarks/serving.py --requests 40 --rounds 3 --out serving.json
    python benchmarks/serving.py --requests 40 --rounds 10 --before ../before   # against another checkout, turn about

Requests are those of SNIPS' kind below, with seeds, so that every reply is checked against the engine's own. The client
is a process of its own on the same machine: on few cores it takes its share of them. Of two checkouts both serve, one
is asked at a time, and it gives the seconds of a request and the time to the first canvas of each pair of rounds as a
ratio, with an interval that holds the median in 95 of 100 cases.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from turn_about import REDRAFT, SOURCE, compared, environment_of, in_turn, output, source_of

import redraft

KEY = "benchmark"
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
    """Starts a server of mini, or one of each checkout, measures, and writes what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=40, help="of each round and number of clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--before", type=Path, help="another checkout, whose server is asked in turn with this one's")
    arguments = parser.parse_args()
    if arguments.before is not None:
        measured = _both({"redraft": SOURCE, "before": source_of(arguments.before)}, arguments)
    else:
        # A request has one thread there, too.
        engine = redraft.load("mini", dtype="float32", threads=1)
        expected = {seed: engine.generate(_text(seed), seed=seed) for seed in range(arguments.requests)}
        with _server(SOURCE) as (port, pid):
            measured = _measure(port, pid, arguments, engine, expected)
    print(json.dumps(measured, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def command_of(source: Path) -> list[str]:
    """What starts a checkout's server. Requests declare no calls: mini is to make those that it knows by heart."""
    command = [*REDRAFT, "serve", "--port", "0", "--api-key", KEY, "--dtype", "float32"]
    return [*command, "--known-tools"] if "--known-tools" in output([*REDRAFT, "serve", "--help"], source) else command


@contextmanager
def _server(source: Path) -> Iterator[tuple[int, int]]:
    """(port, process) of a checkout's server."""
    server = subprocess.Popen(command_of(source), stderr=subprocess.PIPE, text=True, env=environment_of(source))
    try:
        assert server.stderr is not None
        found = re.search(r":(\d+)/", next((line for line in server.stderr if "http://" in line), ""))
        if found is None:
            raise SystemExit(f"{source.parent}: the server does not say where it listens")
        # A log that nobody reads would hold it up.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield int(found[1]), server.pid
    finally:
        server.terminate()
        server.wait(60)


def _both(sources: dict[str, Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Both servers in each round, with one client and with many; the other one waits."""
    numbers, seeds = (1, arguments.clients), list(range(arguments.requests))
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        ports = {name: stack.enter_context(_server(source))[0] for name, source in sources.items()}
        for port in ports.values():
            _many(port, arguments.clients, seeds[: 2 * arguments.clients])
        for number in range(arguments.rounds):
            for clients in numbers:
                for name in in_turn(list(ports), number):
                    began = time.perf_counter()
                    replies = _many(ports[name], clients, seeds)
                    took = (time.perf_counter() - began) / len(replies)
                    first = statistics.median(_first_canvas_s(reply) for _, reply in replies)
                    for figure, value in (("seconds_per_request", took), ("time_to_first_canvas_s", first)):
                        key = f"{figure}, {clients} client{'s' * (clients > 1)}"
                        found.setdefault(key, {each: [] for each in sources})[name].append(value)
    return {key: compared(values["redraft"], values["before"]) for key, values in found.items()}


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
                first[clients].append(_first_canvas_s(reply))
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


def _first_canvas_s(reply: dict[str, Any]) -> float:
    return reply["redraft"][0]["stats"]["time_to_first_canvas_s"]


def _text(seed: int) -> str:
    return TEXTS[seed % len(TEXTS)]


def _percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 3), "p99": round(cuts[98], 3)}


if __name__ == "__main__":
    main()
