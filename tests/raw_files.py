"""Published files of data as their publishers write them, small."""

from __future__ import annotations

import json
import re

from redraft.core.datasets import CLINC150, SNIPS

INTENTS = [file.path.split("/")[1] for file in SNIPS.files[::2]]


def said(text, **slots):
    """A request as SNIPS has it: {name} stands where a slot is filled."""
    pieces = re.split(r"(\{\w+\})", text)
    data = [
        {"text": slots[piece[1:-1]], "entity": piece[1:-1]} if piece.startswith("{") else {"text": piece}
        for piece in pieces
        if piece
    ]
    return {"data": data}


def snips_files(training, validation=(), intent="PlayMusic"):
    """All files of SNIPS; those of one intent hold something."""
    found = {}
    for name in INTENTS:
        for kind, rows in (("train", training), ("validate", validation)):
            suffix = "_full" if kind == "train" else ""
            path = f"2017-06-custom-intent-engines/{name}/{kind}_{name}{suffix}.json"
            found[path] = json.dumps({name: list(rows) if name == intent else []}, ensure_ascii=False).encode()
    assert sorted(found) == sorted(file.path for file in SNIPS.files)
    return found


def clinc_file(**splits):
    rows = {name: splits.get(name, []) for name in ("oos_val", "val", "train", "oos_test", "test", "oos_train")}
    return {CLINC150.files[0].path: json.dumps(rows).encode()}
