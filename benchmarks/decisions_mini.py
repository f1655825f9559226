"""mini's seven tools as options by their own text: one draw, four, the causal mode and whole replies beside each other.

python benchmarks/decisions_mini.py data/mini/snips.test.jsonl [--limit 300] [--rows rows.jsonl] [--json found.json]

Takes conversations that end in a call, such as those of `redraft data get mini`, and of these the tenth that mini never
learned. Calibrations are fitted on half of the requests and judged on the other half.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import redraft
from redraft.cli import show
from redraft.cli.decide_tables import print_ways
from redraft.core.questions import DecideOptions
from redraft.data.mini import held_out
from redraft.decide.rows import read_rows
from redraft.eval.answers import evenly
from redraft.eval.ways import CANVAS, CANVAS_4, CAUSAL, WRITTEN, compare

TOOLS = (
    *("PlayMusic", "AddToPlaylist", "GetWeather", "BookRestaurant", "RateBook", "SearchCreativeWork"),
    "SearchScreeningEvent",
)
QUESTION = {
    "type": "choice",
    "name": "tool",
    "form": "reply",
    "choices": [{"value": tool, "reply": f"<|tool_call>call:{tool}{{"} for tool in TOOLS],
}


def labelled(conversations: Path) -> list[dict[str, Any]]:
    """The held-out requests as rows, each with the tool that is right."""
    rows = []
    for line in conversations.read_text(encoding="utf-8").splitlines():
        request, reply = json.loads(line)["messages"]
        if held_out(request["content"]) and reply.get("tool_calls"):
            tool = reply["tool_calls"][0]["function"]["name"]
            rows.append({"state": request["content"], "answers": {"tool": tool}, "questions": [QUESTION]})
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conversations", type=Path)
    parser.add_argument("--limit", type=int, help="only so many of the rows, evenly spaced")
    parser.add_argument("--rows", type=Path, default=Path("decisions_mini.jsonl"), help="where the rows are written")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--model", default="mini")
    given = parser.parse_args()
    rows = evenly(labelled(given.conversations), given.limit)
    given.rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    engine = redraft.load(given.model, threads=1)
    with show.stages("decisions") as on_progress:
        ways = (CANVAS, CANVAS_4, CAUSAL, WRITTEN)
        found = compare(engine, read_rows(given.rows), DecideOptions(), ways=ways, on_progress=on_progress)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print_ways(found)


if __name__ == "__main__":
    main()
