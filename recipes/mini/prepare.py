"""Makes mini's data from the published sets: training conversations and a held-out tenth, split by text.

python recipes/mini/prepare.py --snips snips/train.jsonl --clinc clinc150/train.jsonl --out data/mini
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from redraft.text.conversations import read_conversations
from redraft.text.lines import json_lines
from redraft.train.known import by_heart, write_by_heart

SENTENCE = "I can only help with music, playlists, weather, restaurants, books, films and screenings."
# Intents of CLINC150 that one of mini's seven calls serves, or nearly does.
OVERLAPPING = frozenset(
    ("play_music", "next_song", "update_playlist", "weather", "restaurant_reservation", "restaurant_suggestion")
)


def held_out(text: str) -> bool:
    """Whether a text belongs to the held-out tenth: a property of the text alone, so that duplicates stay together."""
    normalised = " ".join(text.lower().split())
    return int.from_bytes(hashlib.sha256(normalised.encode()).digest()[:8], "big") % 10 == 0


def main() -> None:
    """Writes snips.train, snips.test, clinc.train and clinc.test as JSONL, and `tools.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snips", type=Path, required=True)
    parser.add_argument("--clinc", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    snips, clinc = ([row for _, row in json_lines(path)] for path in (arguments.snips, arguments.clinc))
    refused = [
        {"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": SENTENCE}]}
        for row in clinc
        if row["intent"] not in OVERLAPPING
    ]
    for name, rows in (("snips", snips), ("clinc", refused)):
        for split, wanted in (("train", False), ("test", True)):
            chosen = [row for row in rows if held_out(row["messages"][0]["content"]) is wanted]
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
            (arguments.out / f"{name}.{split}.jsonl").write_text(lines, encoding="utf-8")
            print(f"{name}.{split}.jsonl: {len(chosen)} conversations")
    rows = [row for name in ("snips", "clinc") for row in read_conversations(arguments.out / f"{name}.train.jsonl")]
    write_by_heart(by_heart(rows), arguments.out)


if __name__ == "__main__":
    main()
