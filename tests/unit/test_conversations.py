"""Rows of data files: what parts them, what each of their fields is for, and what is refused by name."""

from __future__ import annotations

import json

import pytest

from redraft.core.errors import DataError
from redraft.text.conversations import read_conversations

HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "Sing", "parameters": {"type": "object", "properties": {}}}}


def row(reply=None, **fields):
    return {"messages": [HI, {"role": "assistant", "content": "ho", **(reply or {})}], **fields}


def calling(**fields):
    return row({"content": None, "tool_calls": [{"function": {"name": "A", "arguments": {}}, **fields}]})


@pytest.fixture
def file(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        lines = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows)
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())
        return path

    return write


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x1c", "\x0b"])
def test_separators_of_unicode_are_text(file, sign):
    line = json.dumps(row({"content": f"a{sign}b"}), ensure_ascii=ord(sign) < 32)
    found = read_conversations(file(line, row()))
    assert [conversation.line for conversation in found] == [1, 2]
    assert found[0].messages[1]["content"] == f"a{sign}b"


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(file):
    found = read_conversations(file("\ufeff" + json.dumps(row()) + "\r", "\r", json.dumps(row()) + "\r"))
    assert [conversation.line for conversation in found] == [1, 3]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[" * 100_000, "nests too deeply"),
        (json.dumps(row())[:-1] + ', "id": ' + "9" * 5000 + "}", "no JSON"),
        (json.dumps(row({"content": "\ud800"})), "surrogate"),
        (calling(function={"name": "A", "arguments": '"\\ud800"'}), "surrogate"),
        ('{"messages": [], "messages": []}', "twice"),
        (json.dumps(row(id=float("nan"))), "NaN"),
        (json.dumps(row())[:-1] + ', "id": 1e999}', "too large"),
        (calling(function={"name": "A", "arguments": "[" * 100_000}), "deeply"),
        (row(weigth=1), "'weigth'"),
        (row(parallel_tool_calls=False), "'parallel_tool_calls'"),
        (row({"refusal": "no"}), "'refusal'"),
        (row({"function_call": {"name": "A"}}), "'function_call'"),
        (row({"tool_call_id": "1"}), "'tool_call_id'"),
        (row({"weight": 2}), "weight"),
        (row({"reasoning_content": ["a"]}), "reasoning_content must be text"),
        (row({"name": 3}), "name must be text"),
        (row({"content": [{"type": "text", "text": "a", "cache_control": {}}]}), "'cache_control'"),
        (calling(name="B"), "'name'"),
        (calling(type="custom"), "'custom'"),
        (calling(function={"name": "A", "arguments": {}, "output": "x"}), "'output'"),
        (calling(function={"name": "get it", "arguments": {}}), "'get it'"),
        (row(tools=[{"type": "function"}]), "needs a name"),
        (row(tools=[TOOL, TOOL]), "needs a name of its own"),
    ],
)
def test_what_cannot_be_used_is_refused_by_line(file, line, reason):
    with pytest.raises(DataError, match=reason) as caught:
        read_conversations(file(row(), line))
    assert caught.value.line == 2
    assert "\n" not in str(caught.value)


def test_what_is_about_a_row_and_what_is_null_is_left_alone(file):
    plain = row({"refusal": None, "tool_calls": None, "weight": 0}, id=7, source="here", metadata={"a": 1}, tools=None)
    call = calling(id="call_0", index=0, type="function")
    answer = {"role": "tool", "tool_call_id": "call_0", "name": "A", "content": "1"}
    call["messages"] += [answer, {"role": "assistant", "content": "one", "reasoning_content": "it says 1"}]
    found = read_conversations(file(plain, call))
    assert found[0].messages[1] == {"role": "assistant", "content": "ho", "weight": 0}
    assert found[1].messages[2:] == call["messages"][2:]


def test_files_that_cannot_be_read_are_named(tmp_path, file):
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(DataError, match=str(path)) as caught:
            read_conversations(path)
        assert "line" not in str(caught.value)
    with pytest.raises(DataError, match="no conversation"):
        read_conversations(file("", "  \r"))
    path = file(row(), row())
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(DataError, match="line 3: is not UTF-8"):
        read_conversations(path)


def test_texts_to_calibrate_on_are_lines_too(tmp_path, monkeypatch, capsys):
    from redraft.cli import main
    from redraft.engine import calibration

    seen = []
    monkeypatch.setattr(calibration, "importance", lambda path, texts: seen.extend(texts) or exit(0))
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffone\u2028text\r\n\nanother\x85one\n".encode())
    with pytest.raises(SystemExit):
        main(["quantize", "mini", str(tmp_path / "out"), "--calibrate", str(path)])
    assert seen == ["one\u2028text", "another\x85one"]
    path.write_bytes(b"a\n\xff\n")
    assert main(["quantize", "mini", str(tmp_path / "out"), "--calibrate", str(path)]) == 2
    assert f"{path}, line 2: is not UTF-8" in capsys.readouterr().err
