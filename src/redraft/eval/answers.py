"""An engine's answers to rows, which every task grades in its own way, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redraft.core.engine import Engine, Request
from redraft.core.options import exact
from redraft.core.results import Generation, ToolCall
from redraft.eval.data import Row

_ROWS_AT_ONCE = 16
_Any = TypeVar("_Any")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Rows with their replies.

    Attributes:
        pairs: each row that was asked, and the reply.
        elapsed_s: what the replies took together.
    """

    pairs: Sequence[tuple[Row, Generation]]
    elapsed_s: float

    def costs(self) -> dict[str, Any]:
        """`denoising_steps_per_canvas, tokens_per_forward, seconds_per_request` over all `n`, of which `n_failed` ended
        in an error."""
        replies = [reply for _, reply in self.pairs]
        steps = sum(reply.stats.denoising_steps for reply in replies)
        canvases = sum(reply.stats.canvases for reply in replies)
        tokens = sum(reply.stats.generated_tokens for reply in replies)
        # A draft that is verified takes a forward of each kind.
        forwards = steps + sum(reply.stats.encode_passes for reply in replies if reply.stats.drafted_tokens)
        return {
            "denoising_steps_per_canvas": steps / canvases if canvases else None,
            "tokens_per_forward": tokens / forwards if steps else None,
            "seconds_per_request": self.elapsed_s / len(replies) if replies else None,
            "n": len(replies),
            "n_failed": sum(reply.finish_reason == "error" for reply in replies),
        }


def answer(
    engine: Engine,
    rows: Sequence[Row],
    *,
    is_wrong: Callable[[Row, Generation], bool],
    seed: int = 0,
    limit: int | None = None,
    options: Mapping[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_wrong: Callable[[Mapping[str, Any]], None] | None = None,
) -> Answers:
    """Answers the rows, several at once.

    Args:
        is_wrong: which replies `on_wrong` is called with.
        seed: row i is answered with seed + i.
        limit: how many rows, evenly spaced, since files are often sorted; None takes all.
        options: generation options of every row.
        on_progress: called with (rows answered, rows in all).
        on_wrong: called with prompt, expected and got of each wrong reply, as it comes.
    """
    chosen = evenly(rows, limit)
    pairs: list[tuple[Row, Generation]] = []
    elapsed_s = 0.0
    if on_progress is not None:
        on_progress(0, len(chosen))
    for start in range(0, len(chosen), _ROWS_AT_ONCE):
        group = chosen[start : start + _ROWS_AT_ONCE]
        requests = [_request(row, seed + start + offset, options or {}) for offset, row in enumerate(group)]
        began_s = time.perf_counter()
        replies = engine.generate_batch(requests)
        elapsed_s += time.perf_counter() - began_s
        for row, reply in zip(group, replies, strict=True):
            pairs.append((row, reply))
            if on_wrong is not None and is_wrong(row, reply):
                on_wrong(_report(row, reply))
        if on_progress is not None:
            on_progress(len(pairs), len(chosen))
    return Answers(pairs=pairs, elapsed_s=elapsed_s)


def evenly(rows: Sequence[_Any], limit: int | None) -> list[_Any]:
    """So many of the rows, evenly spaced; None takes all."""
    count = len(rows) if limit is None else min(limit, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def share(scores: Sequence[float]) -> float | None:
    """Their mean, of truth values the share that holds; None where there are none."""
    return sum(scores) / len(scores) if scores else None


def _request(row: Row, seed: int, options: Mapping[str, Any]) -> Request:
    own: dict[str, Any] = {"seed": seed} if row.tools is None else {"seed": seed, "tools": list(row.tools)}
    return Request(prompt=list(row.prompt), options={**options, **own})


def _report(row: Row, reply: Generation) -> dict[str, Any]:
    got = {"text": reply.text, "calls": _plain(reply.tool_calls)}
    if reply.error is not None:
        got["error"] = reply.error
    expected = {"text": row.text, "calls": _plain(row.calls)}
    return {"prompt": list(row.prompt), "expected": expected, "got": got, "seed": exact(reply.seed)}


def _plain(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [{"name": call.name, "arguments": call.arguments} for call in calls]
