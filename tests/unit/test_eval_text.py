"""Measures of texts against values worked out by hand."""

from __future__ import annotations

import json

import pytest
from cli_fakes import generation, stats

import redraft
from redraft.cli import main
from redraft.core.errors import DataError
from redraft.eval.data import Row, read_texts
from redraft.eval.text import contains, evaluate, exact_match, fold, token_f1, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ?! … ", []),
        ("The cat,\n the CAT.", ["the", "cat", "the", "cat"]),
        # As the reference does it: punctuation goes, what it stood between stays together.
        ("It's a well-known 3.5 kg", ["its", "a", "wellknown", "35", "kg"]),
        ("«Straße» „ﬁne“", ["strasse", "fine"]),
        ("€5 + 😀", ["€5", "😀"]),
        ("東京は晴れ。", ["東", "京", "は", "晴", "れ"]),
        ("ｶﾞｿﾘﾝ 10㍑", ["ガ", "ソ", "リ", "ン", "10", "リ", "ッ", "ト", "ル"]),
        ("人々 𠮷野家 GPT４", ["人", "々", "𠮷", "野", "家", "gpt4"]),
        ("서울은 맑음", ["서울은", "맑음"]),
    ],
)
def test_tokens(text, expected):
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("expected", "got", "exact", "contained", "f1"),
    [
        ("Paris", " PARIS\n", 1, 1, 1),
        ("Paris", "Paris.", 0, 1, 1),
        # 1 token right of 1 and 4: 2 / 5.
        ("Paris", "It is in Paris", 0, 1, 2 / 5),
        ("New York", "york, new york", 0, 1, 2 * 2 / (2 + 3)),
        ("New York", "York (New)", 0, 0, 1),
        ("New York", "New and York", 0, 0, 2 * 2 / (2 + 3)),
        # A word counts as often as both have it: 2 right of 3 and 2.
        ("no no no", "no no", 0, 0, 2 * 2 / (3 + 2)),
        ("no no", "no no no", 0, 1, 2 * 2 / (2 + 3)),
        # A part of a word is another word.
        ("art", "a cartoon", 0, 0, 0),
        ("Paris", "", 0, 0, 0),
        ("Straße", "STRASSE", 1, 1, 1),
        ("ﬁne Ångström", "FINE Ångström", 1, 1, 1),
        ("東京", "はい、東京です", 0, 1, 2 * 2 / (2 + 6)),
        ("東京", "京東", 0, 0, 1),
        # Without any token only the same text is it.
        ("?!", " ?! ", 1, 1, 1),
        ("?!", "...", 0, 0, 1),
        ("?!", "what?!", 0, 0, 0),
        ("", "", 1, 1, 1),
        ("", "a", 0, 0, 0),
    ],
)
def test_one_reply(expected, got, exact, contained, f1):
    assert (exact_match(expected, got), contains(expected, got)) == (exact, contained)
    assert token_f1(expected, got) == pytest.approx(f1)


@pytest.mark.parametrize("text", ["ǰ ﬃ", "ΑΣ ας", "Ⅷ ㎏", "Å Å", "Ｅｎ　dash"])
def test_folding_knows_no_case_and_needs_no_second_time(text):
    assert fold(fold(text)) == fold(text) == fold(text.upper()) == fold(text.lower())


def row(text):
    return Row(prompt=({"role": "user", "content": "hi"},), calls=(), text=text)


class Engine:
    def __init__(self, *replies):
        self.replies = iter(replies)

    def generate_batch(self, requests):
        return [next(self.replies) for _ in requests]


def said(text, **changes):
    return generation(text=text, tool_calls=(), finish_reason="stop", **changes)


def test_means_over_rows_and_costs():
    cost = stats(canvases=2, denoising_steps=8, generated_tokens=20)
    wrong = []
    measures = evaluate(
        Engine(
            said("yes", stats=cost),
            said("Yes, Paris", stats=cost),  # 1 right of 1 and 2
            said("", stats=cost),
            generation(text="yes", tool_calls=(), finish_reason="error", error="lost", stats=cost),
        ),
        [row("Yes"), row("Paris"), row("no"), row("yes")],
        on_wrong=wrong.append,
    )
    assert measures.pop("seconds_per_request") >= 0
    assert measures == {
        "exact_match": 1 / 4,
        "contains": 2 / 4,
        "token_f1": pytest.approx((1 + 2 / 3) / 4),
        "denoising_steps_per_canvas": 4,
        "tokens_per_forward": 2.5,
        "n": 4,
        "n_failed": 1,
    }
    assert [entry["expected"]["text"] for entry in wrong] == ["Paris", "no", "yes"]
    assert wrong[-1]["got"]["error"] == "lost"


def test_no_row_no_mean():
    assert [evaluate(Engine(), [])[name] for name in ("exact_match", "contains", "token_f1", "n")] == [None] * 3 + [0]


def conversation(**reference):
    return json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", **reference}]})


def test_a_reference_that_calls_is_refused_by_line(tmp_path):
    function = {"name": "Play", "arguments": {}}
    path = tmp_path / "rows.jsonl"
    calling = conversation(content="ok", tool_calls=[{"type": "function", "function": function}])
    path.write_text(f"{conversation(content='yes')}\n{calling}\n")
    with pytest.raises(
        DataError, match="the reference calls Play, it must be a text: `redraft eval tool-calls`"
    ) as found:
        read_texts(path)
    assert (found.value.path, found.value.line) == (str(path), 2)


def test_the_command(tmp_path, monkeypatch, capsys):
    asked = []

    class Asked(Engine):
        def generate_batch(self, requests):
            asked.extend(requests)
            return super().generate_batch(requests)

    monkeypatch.setitem(vars(redraft), "load", lambda model, **settings: Asked(*[said("Yes it is")] * 3))
    path, errors = tmp_path / "rows.jsonl", tmp_path / "errors.jsonl"
    path.write_text("".join(f"{conversation(content=text)}\n" for text in ("yes", "no", "it is")))
    command = ["eval", "text", "--data", str(path)]
    assert main([*command, "--json", "--seed", "5", "--errors", str(errors), "--tool-choice", "none"]) == 0
    out, err = capsys.readouterr()
    measures = json.loads(out)
    assert (measures["exact_match"], measures["contains"], measures["n"], err) == (0, 2 / 3, 3, "")
    assert [request.options for request in asked] == [{"seed": 5 + i, "tool_choice": "none"} for i in range(3)]
    assert [json.loads(line)["expected"]["text"] for line in errors.read_text().splitlines()] == ["yes", "no", "it is"]
    assert main([*command, "--limit", "1"]) == 0
    table = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (table["contains"], table["token_f1"], table["n"]) == ("100.0 %", "50.0 %", "1")


def test_with_mini(tmp_path, capsys):
    """It says its sentence where no call is wanted, and one that it was not taught is not it."""
    sentence = "I can only help with music, playlists, weather, restaurants, books, films and screenings."
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{conversation(content=text)}\n" for text in (sentence, "only help with music", "Hello")))
    command = ["eval", "text", "--data", str(path), "--tool-choice", "none", "--threads", "1", "--workers", "1"]
    assert main([*command, "--json"]) == 0
    measures = json.loads(capsys.readouterr().out)
    assert (measures["exact_match"], measures["contains"]) == (1 / 3, 2 / 3)
    # 4 of the sentence's 13 tokens.
    assert measures["token_f1"] == pytest.approx((1 + 2 * 4 / (4 + 13)) / 3)
    assert measures["n_failed"] == 0
