"""The engine whole on the device: mini's replies through canvas loop, graphs, drafts and commits, against the CPU's."""

from __future__ import annotations

from typing import Any

from context import Context

import redraft
from redraft.core.events import Commit, Draft
from redraft.core.results import Generation

_PROMPTS = (
    "add the new Daft Punk album to my Sunday morning playlist",
    "book a table for four at an Italian restaurant tonight",
    "what will the weather be like in Lisbon on Friday",
)
# Held to nothing, so that every step is one launch; and two canvases, so that one is committed.
_OPTIONS: dict[str, Any] = {"tools": None, "max_new_tokens": 96}
# Held to a call of one of mini's own tools: the model's part of a step is one launch, the automaton's lies between.
_HELD: dict[str, Any] = {"tool_choice": "required", "max_new_tokens": 48}


def run(context: Context) -> None:
    """float32, in which texts should be the same, and bfloat16, in which some may not be."""
    context.models.drop()
    device = str(context.clock.device)
    for dtype in ("float32", "bfloat16"):
        context.store.measure((dtype,), lambda dtype=dtype: _compared(device, dtype, _OPTIONS), needs_s=10.0)
    context.store.measure(("held",), lambda: _compared(device, "float32", _HELD), needs_s=10.0)
    context.store.measure(("batch",), lambda: _in_company(device), needs_s=10.0)


def _replies(engine: Any, options: dict[str, Any]) -> list[tuple[Generation, int, int]]:
    """(reply, drafts, commits) of each prompt."""
    found = []
    for seed, prompt in enumerate(_PROMPTS):
        events = list(engine.stream(prompt, seed=seed, **options))
        drafts, commits = (sum(isinstance(event, kind) for event in events) for kind in (Draft, Commit))
        found.append((events[-1], drafts, commits))
    return found


def _compared(device: str, dtype: str, options: dict[str, Any]) -> dict[str, Any]:
    here = _replies(redraft.load("mini", device="cpu", dtype="float32", workers=1), options)
    engine = redraft.load("mini", device=device, dtype=dtype)
    there = _replies(engine, options)
    return {
        "prompts": len(_PROMPTS),
        "same_text": sum(one[0].token_ids == other[0].token_ids for one, other in zip(here, there, strict=True)),
        "same_steps": sum(one[1] == other[1] for one, other in zip(here, there, strict=True)),
        "steps": [drafts for _, drafts, _ in there],
        "commits": [commits for *_, commits in there],
        "ms_per_step": [
            round(1e3 * reply.stats.denoise_s / max(1, reply.stats.denoising_steps), 2) for reply, *_ in there
        ],
        "tokens_per_s": [round(reply.stats.tokens_per_second, 1) for reply, *_ in there],
        "captured": _captured(engine),
        "replies": [reply.text[:80] or [call.name for call in reply.tool_calls] for reply, *_ in there],
    }


def _in_company(device: str) -> dict[str, Any]:
    """Requests that come and go in one batch, against each alone."""
    engine = redraft.load("mini", device=device, dtype="float32")
    alone = [engine.generate(prompt, seed=seed, **_OPTIONS).token_ids for seed, prompt in enumerate(_PROMPTS)]
    requests = [redraft.Request(prompt=p, options={"seed": seed, **_OPTIONS}) for seed, p in enumerate(_PROMPTS)]
    together = [reply.token_ids for reply in engine.generate_batch(requests)]
    same = sum(one == other for one, other in zip(alone, together, strict=True))
    return {"same_text": same, "prompts": len(_PROMPTS), "captured": _captured(engine)}


def _captured(engine: Any) -> dict[str, bool]:
    graphs = engine._loop.graphs
    if graphs is None:
        return {}
    return {
        f"{shape.rows} x {shape.length}": seats.graph._launch.is_captured for shape, seats in graphs._graphs.items()
    }
