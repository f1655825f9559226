"""No document that redraft writes holds what JSON has no word for."""

from __future__ import annotations

import asyncio
import json
import math
import types
from typing import Any

import pytest
from cli_fakes import FakeEngine, generation, stats

from redraft.cli import main
from redraft.core.results import ToolCall
from redraft.core.strict_json import strict_json
from redraft.server.streams import DONE, events

BAD = {
    "nan": math.nan,
    "infinite": [1.0, (math.inf, -math.inf)],
    "fine": {"x": 1.5, "n": 10**30, "t": "NaN", "b": True},
}
GOOD = {"nan": None, "infinite": [1.0, [None, None]], "fine": {"x": 1.5, "n": 10**30, "t": "NaN", "b": True}}


def parsed(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_is_not_finite_becomes_null():
    assert parsed(strict_json(BAD)) == GOOD
    assert strict_json(math.nan) == "null"
    assert strict_json({"path": object()}, default=lambda _: "an object") == '{"path": "an object"}'


@pytest.fixture
def results(monkeypatch, tmp_path):
    """What the commands show is not finite."""
    engine = FakeEngine(
        generation(
            stats=stats(tokens_per_second=math.inf, tokens_per_forward=math.nan),
            logprobs=(-math.inf, math.nan),
            tool_calls=(ToolCall(name="Call", arguments={"x": math.nan}),),
        )
    )
    monkeypatch.setattr("redraft.load", lambda *_, **__: engine)
    for place in (
        "redraft.train.run.train",
        "redraft.eval.tool_calls.evaluate",
        "redraft.bench.command.bench",
        "redraft.bench.plan.plan",
    ):
        monkeypatch.setattr(place, lambda *_, **__: BAD)
    monkeypatch.setattr("redraft.train.plot.plot_run", lambda *_: math.inf)
    converted = types.SimpleNamespace(nbytes=math.inf, files=(math.nan, 0), checksum="")
    for name in ("quantize", "export"):
        monkeypatch.setattr(f"redraft.checkpoint.convert.{name}", lambda *_, **__: converted)
    monkeypatch.setattr("redraft.core.files.read_json", lambda _: {"presets": {"default": BAD, "fast": BAD}})
    (tmp_path / "file").write_text(
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}'
    )
    return str(tmp_path / "file")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "hello"],
        ["train", "FILE"],
        ["train", "FILE", "--plot"],
        ["eval", "tool-calls", "--data", "FILE"],
        ["bench"],
        ["plan"],
        ["quantize", "mini", "FILE"],
        ["export", "mini", "FILE"],
        ["presets"],
    ],
    ids=" ".join,
)
def test_every_command_with_json(results, capsys, arguments):
    assert main([results if word == "FILE" else word for word in arguments] + ["--json"]) == 0
    assert isinstance(parsed(capsys.readouterr().out), dict)


def test_a_stream_of_the_server():
    done = {}

    async def get():
        return 0, generation(stats=stats(tokens_per_second=math.inf))

    flight = types.SimpleNamespace(
        count=1, done=done, inbox=types.SimpleNamespace(get=get, dropped=0), check=done.__setitem__
    )
    writer = types.SimpleNamespace(first=lambda _: [], last=lambda *_: [{"logprobs": {"content": [-math.inf]}}])

    async def sent():
        return [event async for event in events(flight, writer, {"object": "chat"}, dict, True)]  # type: ignore[arg-type]

    chunk, usage, end = asyncio.run(sent())
    assert parsed(chunk.removeprefix("data: "))["choices"][0]["logprobs"] == {"content": [None]}
    assert parsed(usage.removeprefix("data: "))["usage"]["redraft"][0]["tokens_per_second"] is None
    assert end == DONE
