"""How often a hidden value of mini's own calls comes back right, beside how often it was right when written plainly.

python benchmarks/infilling.py data/mini/snips.test.jsonl --limit 230

Of each request, mini writes a call; one of its arguments is hidden as an open hole, and filled with the request known.
A value is right where the reference has the same, after case folding.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import redraft
from redraft.eval.data import Row, read_rows
from redraft.eval.tool_calls import fold


def main() -> None:
    """Runs it and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=230)
    parser.add_argument("--preset", default=None)
    arguments = parser.parse_args()
    rows = read_rows(arguments.data)
    count = min(arguments.limit, len(rows))
    engine = redraft.load("mini", dtype="float32", threads=1)
    options = {} if arguments.preset is None else {"preset": arguments.preset}
    plain, filled = [], []
    for number in range(count):
        row = rows[number * len(rows) // count]
        reply = engine.generate(list(row.prompt), seed=number, **options)
        hidden = _hidden(row, reply, number)
        if hidden is None:
            continue
        name, value, text = hidden
        got = engine.infill(text, list(row.prompt), seed=number, **options).filled
        wanted = fold(row.calls[0].arguments.get(name))
        plain.append(fold(value) == wanted)
        filled.append(bool(got) and fold(got[0]) == wanted)
    print(json.dumps({
        "n": len(plain), "plain": sum(plain) / len(plain), "infilled": sum(filled) / len(filled),
        "only_plain": sum(a and not b for a, b in zip(plain, filled, strict=True)),
        "only_infilled": sum(b and not a for a, b in zip(plain, filled, strict=True)),
    }))  # fmt: skip


def _hidden(row: Row, reply: redraft.Generation, number: int) -> tuple[str, str, str] | None:
    """(argument, the value that mini wrote, mini's call with a hole in its place); None where there is none to hide."""
    if len(reply.tool_calls) != 1 or len(row.calls) != 1 or reply.tool_calls[0].name != row.calls[0].name:
        return None
    written = [(name, value) for name, value in reply.tool_calls[0].arguments.items() if isinstance(value, str)]
    if not written:
        return None
    name, value = written[number % len(written)]
    quoted = f'{name}:<|"|>{value}<|"|>'
    if reply.raw.count(quoted) != 1 or "[[" in reply.raw:
        return None
    return name, value, reply.raw.replace(quoted, f'{name}:<|"|>[[...]]<|"|>')


if __name__ == "__main__":
    main()
