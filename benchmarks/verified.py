"""The three modes beside each other on a model's task: forwards and seconds a reply, and whether *verified* writes the
causal mode's text.

    python benchmarks/verified.py --limit 200
    python benchmarks/verified.py --data held_out.jsonl --dtype bfloat16 --temperature 1

Where two texts differ, the gap says by how little: between the log-probabilities, in the causal mode, of the first
token that is another and of the one that stands there instead. Below a last bit of the dtype, that is a tie.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import redraft
from redraft.checkpoint.locate import locate
from redraft.core.results import Generation
from redraft.eval.answers import evenly
from redraft.eval.data import read_rows

MODES = ("diffusion", "autoregressive", "verified")


def work(reply: Generation) -> dict[str, float]:
    """What a reply took; the encode of its prompt is nobody's."""
    stats = reply.stats
    return {
        "forwards": stats.denoising_steps + stats.encode_passes - 1,
        "tokens": stats.generated_tokens,
        "canvases": stats.canvases,
        "kept": stats.verified_tokens,
    }


def gap_nats(engine: Any, prompt: list[Any], causal: Generation, verified: Generation) -> float:
    """How much likelier the causal mode finds its own token than the other, at the first that differs."""
    import torch

    pairs = zip(causal.token_ids, verified.token_ids, strict=False)
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
    if place is None:
        return float("nan")
    ids = engine.tokenize(prompt) + list(causal.token_ids[:place])
    hidden = engine.model.encode(torch.tensor([ids]), engine.model.new_cache())[:, -1:]
    table = torch.log_softmax(engine.model.logits(hidden)[0, 0], dim=-1)
    return float(table[causal.token_ids[place]] - table[verified.token_ids[place]])


def main() -> None:
    """Prints one JSON document; the modes take turns, so that what else the machine does meets them alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, help="unset, the rows that the model brings along")
    parser.add_argument("--limit", type=int, help="rows, evenly spaced; unset, all")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quantize")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0, help="of the causal and the verified mode")
    parser.add_argument("--without-tools", action="store_true", help="replies are free, not held to the model's calls")
    arguments = parser.parse_args()
    rows = read_rows(arguments.data or locate(arguments.model) / "held_out.jsonl")
    rows = evenly(rows, arguments.limit)
    count = len(rows)
    engine = redraft.load(
        arguments.model, dtype=arguments.dtype, quantize=arguments.quantize, threads=arguments.threads
    )
    shared: dict[str, Any] = {"tools": None} if arguments.without_tools else {}
    totals: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
    differing = []
    for seed, row in enumerate(rows):
        replies = {}
        for mode in MODES[seed % 3 :] + MODES[: seed % 3]:
            given = shared if mode == "diffusion" else shared | {"temperature": arguments.temperature}
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            replies[mode] = engine.generate(list(row.prompt), mode=mode, seed=seed, **given)
            taken = {"seconds": time.perf_counter() - began_s, "cpu_seconds": time.process_time() - began_cpu_s}
            for name, value in (work(replies[mode]) | taken).items():
                totals[mode][name] = totals[mode].get(name, 0.0) + value / count
        causal, verified = replies["autoregressive"], replies["verified"]
        if causal.token_ids != verified.token_ids:
            differing.append({"row": seed, "gap_nats": gap_nats(engine, list(row.prompt), causal, verified)})
    print(json.dumps({"rows": count, "per_reply": totals, "differing": differing}, indent=2))


if __name__ == "__main__":
    main()
