"""How good a model's replies are while it is trained: a few prompts, in both modes, by one grader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redraft.core.engine import Engine
from redraft.core.results import Generation
from redraft.eval import text, tool_calls
from redraft.eval.answers import Answers, answer, share
from redraft.eval.data import Row

Grader = Callable[[Row, Generation], bool]


def exact(row: Row, reply: Generation) -> bool:
    """The expected calls, and the expected text where there is one; case and white space count for nothing."""
    return calls(row, reply) and (not row.text or text.fold(row.text) == text.fold(reply.text))


def calls(row: Row, reply: Generation) -> bool:
    """The expected calls, in their order, or none where none is expected."""
    return reply.finish_reason != "error" and tool_calls.same_calls(row.calls, reply.tool_calls)


def contains(row: Row, reply: Generation) -> bool:
    """The expected text stands in the reply, in one piece."""
    return reply.finish_reason != "error" and text.contains(row.text, reply.text) == 1.0


GRADERS: Mapping[str, Grader] = {"exact": exact, "calls": calls, "contains": contains}


def quality(
    engine: Engine,
    rows: Sequence[Row],
    grader: str,
    *,
    tokens: int | None = None,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Answers the rows by the canvas and, greedily, by the causal mode.

    Args:
        engine: runs the model.
        rows: prompts with the expected replies.
        grader: one of `GRADERS`.
        tokens: the most of a reply; None takes twice what the longest expected one has, and a canvas at least.
        seed: row i is answered with seed + i.
        check: called now and then; what it raises ends this.

    Returns:
        `quality`, the share of right replies of the canvas, and `quality_causal`; of the canvas's replies `empty`, the
        share without text or call, `steps` a canvas, and `at_cap`, the share whose canvases all took every step.
    """
    is_right = GRADERS[grader]
    options: dict[str, Any] = {"max_new_tokens": tokens or _room(engine, rows)}
    how: dict[str, Any] = {"is_wrong": lambda *_: False, "seed": seed, "on_progress": lambda *_: check()}
    canvas = answer(engine, rows, options=options, **how)
    causal = answer(engine, rows, options=options | {"mode": "autoregressive", "temperature": 0.0}, **how)
    replies = [reply for _, reply in canvas.pairs]
    most = int(engine.info.defaults["max_denoising_steps"])
    return {
        "quality": _right(canvas, is_right),
        "quality_causal": _right(causal, is_right),
        "steps": canvas.costs()["denoising_steps_per_canvas"] or 0.0,
        "at_cap": share([r.stats.denoising_steps >= most * max(1, r.stats.canvases) for r in replies]) or 0.0,
        "empty": share([not reply.text.strip() and not reply.tool_calls for reply in replies]) or 0.0,
    }


def _right(answers: Answers, is_right: Grader) -> float:
    return share([is_right(row, reply) for row, reply in answers.pairs]) or 0.0


def _room(engine: Engine, rows: Sequence[Row]) -> int:
    expected = [row.text + "".join(map(str, row.calls)) for row in rows]
    longest = max(len(engine.encode(one)) for one in expected)
    return max(2 * longest, engine.info.canvas_length)
