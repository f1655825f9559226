"""Texts of several canvases under every sampler, stop and mode: what the causal mode thinks of them, and their seams.

    python recipes/books/prepare.py --books books --out data/books
    redraft train recipes/books/books.yaml
    python benchmarks/long_texts.py --model runs/books --data data/books/books.test.jsonl --limit 100 --out long

Writes `long.jsonl` (resumes), `long.md` and `long.png`. The judge is the causal mode of the same weights: nats a token
of the text behind its prompt, less of them the better, down to what people write, whose own continuation is a line of
the table. Text that goes in circles is likely, too: so beside it stands the share of tokens whose last four have stood
in that order before. A seam is where a canvas begins: how much less likely its first tokens are than the others, beside
the same places of what people write.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from step_rules import COST_HEAD, REFERENCE, RULES, cost_cells, plot, run, work

import redraft
from redraft.core.engine import Engine
from redraft.core.results import Generation
from redraft.eval.answers import evenly
from redraft.eval.data import Row, read_rows
from redraft.eval.paired import bootstrapped

# The causal mode as it draws, beside its likeliest tokens.
DRAWN = {"causal, drawn": {"mode": "autoregressive"}, "verified, drawn": {"mode": "verified"}}
SPAN, AFTER_SEAM = 4, 3
PEOPLE = "what people write"


def judged(engine: Engine, prompt: list[int], token_ids: Sequence[int]) -> list[float]:
    """Nats that the causal mode gives each token."""
    if not token_ids:
        return []
    model = engine.model
    hidden = model.encode(torch.tensor([[*prompt, *token_ids]]), model.new_cache())[:, len(prompt) - 1 : -1]
    table = torch.log_softmax(model.logits(hidden)[0].float(), dim=-1)
    return (-table.gather(-1, torch.tensor(token_ids)[:, None])[:, 0]).tolist()


def repeated(token_ids: Sequence[int]) -> float:
    """Share of tokens that end a span of `SPAN` tokens which has stood there before."""
    seen: set[tuple[int, ...]] = set()
    found = 0
    for end in range(SPAN, len(token_ids) + 1):
        span = tuple(token_ids[end - SPAN : end])
        found += span in seen
        seen.add(span)
    return found / max(1, len(token_ids))


def said(nats: Sequence[float], token_ids: Sequence[int], canvas_length: int) -> dict[str, Any]:
    """What is measured of a text."""
    places = np.arange(len(nats))
    at_seam = (places >= canvas_length) & (places % canvas_length < AFTER_SEAM)
    values = np.asarray(nats)
    both = at_seam.any() and not at_seam.all()
    seam = float(values[at_seam].mean() - values[~at_seam].mean()) if both else None
    return {"nats": float(values.mean()) if len(nats) else None, "repeated": repeated(token_ids), "seam": seam}


def measured(engine: Engine, row: Row, reply: Generation) -> dict[str, Any]:
    """Of a reply."""
    nats = judged(engine, engine.tokenize(list(row.prompt)), reply.token_ids)
    return said(nats, reply.token_ids, engine.info.canvas_length)


def people(engine: Engine, rows: Sequence[Row], most: int) -> dict[str, Any]:
    """The line of what people write."""
    found = []
    for row in rows:
        ids = engine.tokenizer.encode(row.text)[:most]
        found.append(said(judged(engine, engine.tokenize(list(row.prompt)), ids), ids, engine.info.canvas_length))
    return {"rule": PEOPLE, "n": len(found), **means(found)}


def means(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of what a text says; a text without a seam counts for none."""
    return {
        key: float(np.mean([line[key] for line in lines if line[key] is not None] or [np.nan]))
        for key in ("nats", "repeated", "seam")
    }


def compared(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """A line for each rule, against the reference's on the same rows."""
    lines = []
    for name, rows in found.items():
        pairs = zip(rows, found[REFERENCE], strict=True)
        differences = [a["nats"] - b["nats"] for a, b in pairs if a["nats"] is not None and b["nats"] is not None]
        difference, low, high = bootstrapped(differences)
        lines.append({
            "rule": name, **means(rows), "difference": difference, "low": low, "high": high,
            "collapsed": sum(row["repeats"] for row in rows), "length": sum(row["tokens"] for row in rows) / len(rows),
            **work(rows),
        })  # fmt: skip
    return lines


def table(lines: Sequence[Mapping[str, Any]], people: Mapping[str, Any]) -> str:
    """In Markdown."""
    head = "| rule | n | nats a token | against the reference | repeated | collapsed canvases | seam, nats | tokens "
    head += f"| {COST_HEAD} |"
    found = [head, "|" + "---|" * (head.count("|") - 1)]
    for x in lines:
        found.append(
            f"| {x['rule']} | {x['n']} | {x['nats']:.2f} | {x['difference']:+.2f} [{x['low']:+.2f}, {x['high']:+.2f}] "
            f"| {x['repeated']:.1%} | {x['collapsed']} | {x['seam']:+.2f} | {x['length']:.0f} | {cost_cells(x)} |"
        )
    x = people
    rest = " |" * (head.count("|") - 1 - 8)
    found.append(f"| {PEOPLE} | {x['n']} | {x['nats']:.2f} | | {x['repeated']:.1%} | | {x['seam']:+.2f} | |{rest}")
    return "\n".join(found)


def main() -> None:
    """Runs what is missing, and writes the three files."""
    rules = RULES | DRAWN
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="rows, evenly spaced; unset, all")
    parser.add_argument("--tokens", type=int, default=192, help="the most of a text")
    parser.add_argument("--only", nargs="+", choices=rules, default=list(rules), metavar="RULE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="path without an end")
    given = parser.parse_args()
    rows = evenly(read_rows(given.data), given.limit)
    engine = redraft.load(given.model, threads=given.threads, prefix_cache_mb=0, dtype="float32")
    chosen = {name: rules[name] | {"max_new_tokens": given.tokens} for name in dict.fromkeys([REFERENCE, *given.only])}
    found = run(engine, given.out.with_suffix(".jsonl"), chosen, rows, partial(measured, engine))
    lines = compared(found)
    what = f"{date.today()}, {engine.info.name}, {engine.info.dtype}, {platform.machine()}, "
    what += f"torch {torch.__version__}, {given.threads} thread(s), {len(rows)} passages"
    text = f"{what}\n\n{table(lines, people(engine, rows, given.tokens))}\n"
    given.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    plot(given.out.with_suffix(".png"), lines, "nats a token more than the reference's rule, 95 %")


if __name__ == "__main__":
    main()
