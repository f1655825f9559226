"""mini's data: training conversations and a held-out tenth, split by text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

SENTENCE = "I can only help with music, playlists, weather, restaurants, books, films and screenings."
# Intents of CLINC150 that one of mini's seven calls serves, or nearly does.
OVERLAPPING = frozenset(
    ("play_music", "next_song", "update_playlist", "weather", "restaurant_reservation", "restaurant_suggestion")
)

Rows = list[dict[str, Any]]


def held_out(text: str) -> bool:
    """Whether a text belongs to the held-out tenth: a property of the text alone, so that duplicates stay together."""
    normalised = " ".join(text.lower().split())
    return int.from_bytes(hashlib.sha256(normalised.encode()).digest()[:8], "big") % 10 == 0


def split(snips: Iterable[dict[str, Any]], clinc150: Iterable[Mapping[str, str]]) -> dict[str, Rows]:
    """What is trained on and what is held out, by file name: calls, and requests that are turned down."""
    refused = [
        {"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": SENTENCE}]}
        for row in clinc150
        if row["intent"] not in OVERLAPPING
    ]
    return {
        f"{name}.{part}.jsonl": [row for row in rows if held_out(row["messages"][0]["content"]) is wanted]
        for name, rows in (("snips", list(snips)), ("clinc", refused))
        for part, wanted in (("train", False), ("test", True))
    }
