"""`redraft data check`: what it counts, and that a tool's answer is never learned."""

from __future__ import annotations

import json

import numpy as np
import pytest

from redraft.checkpoint.locate import BUNDLED
from redraft.cli import main
from redraft.text.conversations import Conversation
from redraft.train.checking import pieces_of
from redraft.train.collate import Weights, collate, collate_rows
from redraft.train.data import open_encoder
from redraft.train.rows import rows_of

CALL = {"type": "function", "function": {"name": "A", "arguments": {"x": "red"}}}
CALLED = [
    {"role": "user", "content": "do it"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "it is done"},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "thanks"},
    {"role": "assistant", "content": "You are welcome."},
]
# Drops what was thought before the last request, as the released one does.
FORGETS = """{% for message in messages %}<|turn>{{ message.role }}
{% if message.reasoning_content and loop.last %}<|channel>{{ message.reasoning_content }}<channel|>{% endif %}
{{- message.content }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def encoder():
    return open_encoder(BUNDLED / "mini", 512)


def test_a_tools_answer_is_context_whatever_the_prompt_weighs(encoder):
    whole = encoder.whole(Conversation(CALLED, 1), "rows.jsonl")
    [row] = rows_of(whole)
    assert len(row.replies) == 3
    shown = [(piece.text, piece.learned) for piece in pieces_of(row, encoder.tokenizer)]
    assert [text for text, learned in shown if learned] == [
        '<|tool_call>call:A{x:<|"|>red<|"|>}<tool_call|><turn|>', "Done.<turn|>", "You are welcome.<turn|>",
    ]  # fmt: skip
    assert "".join(text for text, learned in shown if not learned).count("it is done") == 1
    told = encoder.tokenizer.decode([token for token, is_told in zip(row.ids, row.told, strict=True) if is_told])
    assert told.startswith("<|tool_response>")
    assert told.endswith("<tool_response|>")
    rng = np.random.default_rng(0)
    batch = collate_rows([row], 48, 1, rng, weights=Weights(prompt=1.0))
    at = row.ids.index(encoder.tokenizer.id_of("<|tool_response>"))
    # The call's own end is learned in the place of the result's beginning.
    assert batch.causal[0, at - 1] == 1
    assert batch.targets[0, at - 1] == encoder.tokenizer.id_of("<turn|>")
    inside = [i for i, is_told in enumerate(row.told) if is_told and i > at]
    assert batch.causal[0, [i - 1 for i in inside]].sum() == 0
    one = collate([whole[1]], 48, 1, rng)
    assert one.causal[0, [i - 1 for i in inside]].sum() == 0


def test_a_template_that_drops_old_thoughts_makes_several_rows(encoder, tmp_path):
    from redraft.text.chat import ChatTemplate
    from redraft.train.examples import Encoder

    forgetful = Encoder(encoder.tokenizer, ChatTemplate(FORGETS), 512)
    turns = []
    for text in ("a", "b", "c"):
        said = {"role": "assistant", "content": text, "reasoning_content": f"why {text}"}
        turns += [{"role": "user", "content": text}, said if text != "b" else {"role": "assistant", "content": text}]
    rows = rows_of(forgetful.whole(Conversation(turns[:4], 1), "rows.jsonl"))
    assert [len(row.replies) for row in rows] == [1, 1]
    learned = [[piece.text for piece in pieces_of(row, encoder.tokenizer) if piece.learned] for row in rows]
    assert learned == [["<|channel>why a<channel|>a<turn|>"], ["b<turn|>"]]
    assert "why a" not in encoder.tokenizer.decode(rows[1].ids)


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def checked(capsys, *arguments):
    code = main(["data", "check", *map(str, arguments), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_what_a_file_holds(file, capsys):
    long = [{"role": "user", "content": "go on"}, {"role": "assistant", "content": "word " * 200}]
    path = file({"messages": CALLED}, {"messages": CALLED, "id": 2}, {"messages": long})
    code, found, err = checked(capsys, path, "--max-length", 100)
    assert (code, err) == (0, "")
    assert found["rows"] == 3
    assert found["turns"] == {"user": 5, "assistant": 7, "tool": 2}
    assert (found["replies"], found["cut"], found["left_out"]) == (7, 1, 0)
    assert found["canvases"] == 3 + 3 + 1
    assert found["duplicate_lines"] == {"2": 1}
    assert found["longest"] > 200
    assert [sample["line"] for sample in found["samples"]] == [1, 2, 3]
    assert "".join(piece["text"] for piece in found["samples"][0]["pieces"]).count("<turn|>") == 5
    code, found, _ = checked(capsys, path, "--max-length", 3)
    assert (found["left_out"], found["replies"]) == (3, 0)


def test_bad_rows_are_told_and_end_with_2(file, capsys):
    refused = {"messages": [{"role": "tool", "content": "1"}, *CALLED]}
    path = file({"messages": CALLED}, {"text": "hi"}, refused)
    code, found, err = checked(capsys, path)
    assert code == 2
    assert [row["line"] for row in found["bad_rows"]] == [2, 3]
    assert f"{path}, line 2: is no conversation" in err
    assert "1 other row is bad, too; --skip-bad" in err
    assert len(err.splitlines()) == 1
    code, found, err = checked(capsys, path, "--skip-bad")
    assert (code, found["bad"], err) == (0, 2, "")


def test_it_shows_samples_with_what_is_learned(file, capsys, monkeypatch):
    path = file({"messages": CALLED})
    assert main(["data", "check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "<turn|>\n<|turn>model\n{+You are welcome.<turn|>+}" in out
    assert "it is done" in out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["data", "check", str(path)]) == 0
    assert "\x1b[32mDone.<turn|>\x1b[39m" in capsys.readouterr().out
