"""A decider's first lessons: a letter stands for the words beside it, and the data is what its checksums are of."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

from redraft.core.datasets import DATASETS
from unit.test_data_decider import FILES

ROWS = FILES["first.jsonl"]
HOW = re.compile(r"Answer (.*)\.$")


def lines(row):
    """(the prompt's lines, what it says of the answer, the answer)."""
    prompt, reply = (message["content"] for message in row["messages"])
    return prompt.split("\n"), HOW.search(prompt)[1], reply


def test_every_kind_of_lesson_is_given():
    kinds = Counter(lines(row)[1] for row in ROWS)
    assert set(kinds) == {
        "in a few words", "with one of these, word for word", "with one letter and its words", "with one letter",
        "yes or no",
    }  # fmt: skip
    assert kinds["with one letter and its words"] > kinds["with one letter"] > kinds["in a few words"]


def test_letters_and_words_are_those_of_one_option():
    for row in ROWS:
        prompt, how, answer = lines(row)
        if how == "with one letter and its words":
            assert answer in prompt
        elif how == "with one letter":
            assert any(line.startswith(f"{answer}: ") for line in prompt)
        elif how == "with one of these, word for word":
            assert f"- {answer}" in prompt
        elif how == "yes or no":
            assert answer in ("yes", "no")


def test_a_letter_alone_is_that_of_its_words():
    """The same request, asked both ways in other turns: what the letters stand for agrees."""
    found = {}
    for row in ROWS:
        prompt, how, answer = lines(row)
        if not how.startswith("with one letter"):
            continue
        words = next(line.split(": ", 1)[1] for line in prompt if line.startswith(f"{answer[0]}: "))
        question = next(line for line in prompt if line.startswith("Question: "))
        if "What is the request for" in question or "What does the user want" in question:
            found.setdefault(prompt[0], set()).add(words)
    assert len(found) > 20
    assert all(len(words) == 1 for words in found.values())


def test_what_the_files_hold_has_not_changed_under_their_checksums():
    """Of made-up requests. A change here changes the published files too: then `core/datasets.py` wants new sums."""
    text = {name: "".join(sorted(json.dumps(row) for row in rows)) for name, rows in FILES.items()}
    assert {name: hashlib.sha256(text[name].encode()).hexdigest()[:12] for name in text} == {
        "first.jsonl": "78778fb8cef0", "train.jsonl": "604fcb5b9087", "dev.jsonl": "6e65acc9aeb6",
        "test.jsonl": "04c048078192", "scope.jsonl": "e5c410876c59",
    }  # fmt: skip
    (ours,) = (each for each in DATASETS if each.name == "decider")
    assert {product.name for product in ours.products} == set(FILES)
