"""What of JSON Schema's own test suite is held, written in part or refused.

    python benchmarks/json_schema_suite.py SUITE/tests/draft2020-12 --out suite.md

The suite is not part of this repository; the sources of `jsonschema` on PyPI hold it under `json/tests`. Each schema is
made a tree, and the tree an automaton. Of every instance it is said whether both hold one of the ways to write it;
random texts of the tree are checked by `jsonschema`. No invalid instance may be held, no text may be invalid, and the
automaton may not take another text than the tree holds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
from referencing.exceptions import Unresolvable

from redraft.core.errors import SchemaError
from redraft.text.grammar.compile import compiled
from redraft.text.grammar.core import Core
from redraft.text.grammar.nodes import Node
from redraft.text.grammar.registers import Kind
from redraft.text.schema import schema_node

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from grammar_matches import matches, some_texts
from taken import takes

# The suite names its schemas by the draft; nothing of ours depends on it.
SPACED = ({"separators": (", ", ": ")}, {"separators": (",", ":")}, {"ensure_ascii": False})


@dataclass
class Told:
    """What one file of the suite came to.

    Attributes:
        schemas, refused: how many schemas there are, and how many were refused, by keyword.
        written, valid: valid instances that a tree holds, and all of them.
        accepted: invalid instances that a tree holds.
        texts, wrong: random texts, and those that are not valid.
        failures: what must not be, in words.
    """

    schemas: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    written: int = 0
    valid: int = 0
    accepted: int = 0
    texts: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)


def main() -> None:
    """Prints one row a file of the suite, and what is wrong; writes the same as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="the folder of one draft's tests")
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    parser.add_argument("--texts", type=int, default=20, help="random texts of each schema")
    parser.add_argument("--refusals", action="store_true", help="prints every refusal")
    arguments = parser.parse_args()
    told = {path.stem: told_of(path, arguments.texts, arguments.refusals) for path in files(arguments.suite)}
    rows = list(table(told))
    print("\n".join(rows))
    for name, found in told.items():
        for failure in found.failures:
            print(f"{name}: {failure}")
    if arguments.out is not None:
        arguments.out.write_text("\n".join(rows) + "\n", encoding="utf-8")
    sys.exit(any(found.failures for found in told.values()))


def files(suite: Path) -> list[Path]:
    """The required tests of a draft, and those of formats."""
    return [*sorted(suite.glob("*.json")), *sorted(suite.glob("optional/format/*.json"))]


def told_of(path: Path, texts: int, loud: bool) -> Told:
    """Runs one file."""
    told = Told()
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER if path.parent.name == "format" else None
    for case in json.loads(path.read_text(encoding="utf-8")):
        told.schemas += 1
        try:
            node = schema_node(case["schema"])
            core = compiled(node)
        except SchemaError as error:
            told.refused[error.path.rpartition(".")[2] or "false"] += 1
            if loud:
                print(f"{path.stem}: {case['description']}: {error}")
            continue
        for test in case["tests"]:
            spelled = [json.dumps(test["data"], **form) for form in SPACED]
            held = any(matches(node, text) for text in spelled)
            told.failures += [
                f"tree and automaton differ: {text[:200]}" for text in spelled if differ(node, core, text)
            ]
            told.valid += test["valid"]
            told.written += test["valid"] and held
            if held and not test["valid"]:
                told.accepted += 1
                told.failures.append(f"holds what is invalid: {case['description']}: {test['description']}")
        validator = jsonschema.Draft202012Validator(case["schema"], format_checker=checker)
        for text in some_texts(node, random.Random(0), texts):
            told.texts += 1
            if differ(node, core, text):
                told.failures.append(f"tree and automaton differ: {text[:200]}")
            try:
                valid = validator.is_valid(json.loads(text))
            except Unresolvable:
                continue
            if not valid:
                told.wrong += 1
                told.failures.append(f"spells what is invalid: {case['description']}: {text[:200]}")
    return told


def differ(node: Node, core: Core, text: str) -> bool:
    """Whether an automaton takes another text than its tree holds; lists without repeats are told by reading alone."""
    held, taken = matches(node, text), takes(core, text)
    return held > taken if any(rule.kind is Kind.CLOSE for rule in core.rules) else held != taken


def table(told: dict[str, Told]) -> Iterator[str]:
    """Rows of Markdown."""
    yield "| tests of | schemas | refused | valid instances written | invalid ones held | texts, not valid |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, found in told.items():
        yield _row(f"`{name}`", found)
    total = Told()
    for found in told.values():
        for key in ("schemas", "refused", "written", "valid", "accepted", "texts", "wrong"):
            setattr(total, key, getattr(total, key) + getattr(found, key))
    yield _row("all", total)


def _row(name: str, found: Told) -> str:
    cells: list[Any] = [
        found.schemas,
        sum(found.refused.values()),
        f"{found.written} of {found.valid}",
        found.accepted,
        f"{found.texts}, {found.wrong}",
    ]
    return f"| {name} | {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
