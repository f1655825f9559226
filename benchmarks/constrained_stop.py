"""Whether a canvas under a constraint stops where its text has settled, or too early; mini, each reply asked twice.

    python benchmarks/constrained_stop.py data/mini/snips.test.jsonl --out constrained_stop.json

Calls under mini's seven tools, and choices, patterns and schemas, which mini would not write by itself: once as they
are and once with all 48 steps (a confidence of 0), with the same seed. "as step 47" is the share whose text the last of
the 48 steps left alone: no rule that stops earlier can be held to more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redraft
from redraft.core.engine import Engine
from redraft.eval.data import Row, read_rows
from redraft.eval.paired import mcnemar
from redraft.eval.tool_calls import grade

STRING, FLAG, NUMBER = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}


def an_object(**properties: Any) -> dict[str, Any]:
    """A closed schema that requires all of these."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False
    }  # fmt: skip


def under(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The response format of a schema."""
    return {"type": "json_schema", "schema": schema}


FORMS: dict[str, dict[str, Any]] = {
    "one of two": {"type": "choice", "choices": ["yes please", "no"]},
    "one of seven": {
        "type": "choice",
        "choices": ["add", "book", "weather", "play", "rate", "find a work", "screenings"],
    },
    "a date": {"type": "regex", "pattern": "[0-9]{4}-[0-9]{2}-[0-9]{2}"},
    "one or two words": {"type": "regex", "pattern": "[a-z]+( [a-z]+)?"},
    "city, rain": under(an_object(city=STRING, rain=FLAG)),
    "an enum": under({"enum": ["sunny", "cloudy", "rainy"]}),
    "a list": under({"type": "array", "items": STRING}),
    "an object in one": under(an_object(who=an_object(name=STRING, age=NUMBER), sure=FLAG)),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One request asked twice.

    Attributes:
        row: the request.
        free_steps: of a reply that is held to nothing.
        stopped: the reply as it comes.
        whole: the reply of all steps.
        stands: whether the last step left the text alone.
    """

    row: Row
    free_steps: int
    stopped: redraft.Generation
    whole: redraft.Generation
    stands: bool


def main() -> None:
    """Asks everything and prints a line a group; `--out` gets them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="requests, a conversation a line, whose last message is the call")
    parser.add_argument("--calls", type=int, default=500, help="requests that are asked for calls, evenly spaced")
    parser.add_argument("--forms", type=int, default=40, help="requests of each form")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = read_rows(arguments.data)
    engine = redraft.load("mini", dtype="float32", threads=arguments.threads)
    report = {
        "model": "mini",
        "dtype": "float32",
        "groups": dict(_groups(engine, rows, arguments.calls, arguments.forms)),
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _groups(engine: Engine, rows: Sequence[Row], calls: int, forms: int) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted: list[tuple[str, dict[str, Any], int]] = [("calls", {}, calls)]
    wanted += [(name, {"response_format": form}, forms) for name, form in FORMS.items()]
    for name, options, count in wanted:
        began_s = time.perf_counter()
        count = min(count, len(rows))
        pairs = [_pair(engine, rows[i * len(rows) // count], i, options) for i in range(count)]
        found = _summary(pairs) | ({} if options else _correctness(pairs))
        print(name, json.dumps(found), f"{time.perf_counter() - began_s:.0f} s", flush=True)
        yield name, found


def _pair(engine: Engine, row: Row, seed: int, options: Mapping[str, Any]) -> Pair:
    prompt = list(row.prompt)
    stopped = engine.generate(prompt, seed=seed, **options)
    events = list(engine.stream(prompt, seed=seed, confidence_threshold=0.0, **options))
    whole = events[-1]
    assert isinstance(whole, redraft.Generation)
    before, last = [event.token_ids for event in events if isinstance(event, redraft.Draft)][-2:]
    return Pair(
        row=row,
        free_steps=engine.generate(prompt, seed=seed, tools=None).stats.denoising_steps,
        stopped=stopped,
        whole=whole,
        stands=_text(engine, before) == _text(engine, last),
    )


def _text(engine: Engine, token_ids: Sequence[int]) -> tuple[int, ...]:
    ends = engine.info.end_ids
    return tuple(token_ids[: next((i for i, token in enumerate(token_ids) if token in ends), len(token_ids))])


def _summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    steps = [pair.stopped.stats.denoising_steps for pair in pairs]
    return {
        "n": len(pairs),
        "steps": statistics.mean(steps),
        "most steps": max(steps),
        "free steps": statistics.mean(pair.free_steps for pair in pairs),
        "equal": statistics.mean(pair.stopped.raw == pair.whole.raw for pair in pairs),
        "as step 47": statistics.mean(pair.stands for pair in pairs),
        "against": statistics.mean(bool(pair.stopped.stats.disagreements) for pair in pairs),
    }


def _correctness(pairs: Sequence[Pair]) -> dict[str, Any]:
    right = [(_is_right(pair.row, pair.stopped), _is_right(pair.row, pair.whole)) for pair in pairs]
    lost, won = right.count((False, True)), right.count((True, False))
    return {
        "exact match": statistics.mean(stopped for stopped, _ in right),
        "exact match, all steps": statistics.mean(whole for _, whole in right),
        "lost, won, McNemar p": [lost, won, mcnemar(lost, won)],
    }


def _is_right(row: Row, reply: redraft.Generation) -> bool:
    return bool(grade([(row, reply)], {})["exact_match"])


if __name__ == "__main__":
    main()
