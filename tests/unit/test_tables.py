"""Files and rows in the forms that people have: read alike, and a bad row named by its line."""

from __future__ import annotations

import json

import pytest

from redraft.core.errors import DataError
from redraft.text.conversations import read_conversations

ASKED, SAID = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
PLAIN = [ASKED, SAID]
RESULT = {"role": "tool", "content": "2"}
TOOL = {"type": "function", "function": {"name": "A", "parameters": {"type": "object", "properties": {}}}}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "A", "arguments": {"x": 1}}}]}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("row", "messages", "tools"),
    [
        ({"messages": PLAIN}, PLAIN, None),
        ({"messages": PLAIN, "tools": json.dumps([TOOL])}, PLAIN, [TOOL]),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, PLAIN, None),
        (
            {
                "system": "be kind",
                "conversations": [
                    {"from": "user", "value": "hi"},
                    {"from": "function_call", "value": '{"name": "A", "arguments": {"x": 1}}'},
                    {"from": "observation", "value": "2"},
                    {"from": "assistant", "value": "ho", "weight": 1},
                ],
                "tools": '[{"name": "A", "parameters": {"type": "object", "properties": {}}}]',
            },
            [{"role": "system", "content": "be kind"}, ASKED, CALL, RESULT, SAID | {"weight": 1}],
            [TOOL],
        ),
        ({"instruction": "hi", "input": "", "output": "ho", "text": "hi ho"}, PLAIN, None),
        (
            {"instruction": "add", "input": "1 2", "output": "3", "history": [["hi", "ho"]]},
            [*PLAIN, {"role": "user", "content": "add\n\n1 2"}, {"role": "assistant", "content": "3"}],
            None,
        ),
        ({"prompt": "hi", "completion": "ho", "id": 7}, PLAIN, None),
        ({"prompt": [ASKED], "completion": [SAID]}, PLAIN, None),
    ],
)  # fmt: skip
def test_rows_of_every_shape_are_conversations(file, row, messages, tools):
    [found] = read_conversations(file("rows.jsonl", json.dumps(row)))
    assert found.messages == messages
    assert found.tools == tools


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "hi"}, "is no conversation"),
        ([1], "is no conversation"),
        ({"messages": PLAIN, "conversations": []}, "has both 'messages' and 'conversations'"),
        ({"conversations": [{"from": "robot", "value": "hi"}]}, "turn 0 is from 'robot'"),
        ({"conversations": [{"from": "human", "value": 3}]}, "turn 0: its value must be text"),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "tool_call", "value": "{"}]}, "its call is no"),
        ({"conversations": [{"from": "human", "value": "hi", "loss": 1}]}, "'loss' that nothing would use"),
        ({"instruction": 3, "output": "ho"}, "instruction must be text"),
        ({"instruction": "hi", "output": "ho", "history": ["hi"]}, "history must be a list"),
        ({"prompt": 3, "completion": "ho"}, "prompt must be text, or a list"),
        ({"prompt": "hi", "completion": "ho", "score": 1}, "'score' that nothing would use"),
        ({"messages": PLAIN, "tools": "["}, "tools is no JSON"),
    ],
)  # fmt: skip
def test_rows_that_are_none_are_named(file, row, reason):
    path = file("rows.jsonl", json.dumps({"messages": PLAIN}) + "\r\n\r\n" + json.dumps(row))
    with pytest.raises(DataError, match=reason) as caught:
        read_conversations(path)
    assert caught.value.line == 3
    bad: list[DataError] = []
    assert [found.line for found in read_conversations(path, bad)] == [1]
    assert [error.line for error in bad] == [3]


def test_a_list_of_json_has_lines(file):
    rows = [{"prompt": "hi", "completion": "ho"}, {"messages": PLAIN}]
    text = "\ufeff[\r\n" + ",\r\n\r\n".join(json.dumps(row, indent=1) for row in rows) + "\r\n]\r\n"
    found = read_conversations(file("rows.json", text))
    assert [row.messages for row in found] == [PLAIN, PLAIN]
    assert [row.line for row in found] == [2, 7]
    # A file of lines may end so, too.
    assert len(read_conversations(file("lines.json", "\n".join(map(json.dumps, rows))))) == 2
    twice = '[{"prompt": "a", "prompt": "b", "completion": "c"},\n{"prompt": "a", "completion": "b"}]'
    bad: list[DataError] = []
    assert [row.line for row in read_conversations(file("twice.json", twice), bad)] == [2]
    assert "twice" in str(bad[0])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[\n{"prompt": "a", "completion": "b"}\n{"prompt"', 3),
        ("[\n{", 2),
        ('[{"prompt": "a", "completion": "b"}] x', 1),
        ("[" * 100_000, 1),
    ],
)
def test_a_list_that_is_none(file, text, line):
    with pytest.raises(DataError, match="no JSON") as caught:
        read_conversations(file("rows.json", text))
    assert caught.value.line == line


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_tables_of_cells(file, name, separator):
    lines = [["prompt", "completion", "id"], ["hi", "ho", "1"], [], ['"say\n""hi"""', "ho", ""]]
    text = "\ufeff" + "\r\n".join(separator.join(cells) for cells in lines) + "\r\n"
    found = read_conversations(file(name, text))
    assert [row.messages[0]["content"] for row in found] == ["hi", 'say\n"hi"']
    assert [row.line for row in found] == [2, 4]


def test_cells_may_hold_conversations(file):
    cell = json.dumps(PLAIN).replace('"', '""')
    [found] = read_conversations(file("a.csv", f'messages\n"{cell}"\n'))
    assert found.messages == PLAIN


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("prompt,completion\nhi,ho\nhi,ho,hu\n", 3, "3 cells, and the header 2"),
        ("prompt,prompt\n1,2\n", 1, "names a column twice"),
        ('prompt,completion\n"hi,ho\n', 2, "no CSV"),
        ("messages\n[1\n", 2, "its messages is no JSON"),
        ("prompt,completion\nhi,\n", 2, "is no conversation"),
    ],
)
def test_tables_that_are_none(file, text, line, reason):
    with pytest.raises(DataError, match=reason) as caught:
        read_conversations(file("a.csv", text))
    assert caught.value.line == line


def test_parquet(tmp_path, file):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"messages": [ASKED, {"role": "assistant", "content": f"{i}"}], "tools": None} for i in range(600)]
    rows[1]["messages"] = [ASKED, CALL]
    rows[599]["messages"] = [{"role": "robot", "content": "hi"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    bad: list[DataError] = []
    found = read_conversations(tmp_path / "rows.parquet", bad)
    assert [row.line for row in found] == list(range(1, 600))
    assert found[1].messages == [ASKED, CALL]
    assert "rows.parquet, row 600: message 0 has role 'robot'" in str(bad[0])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_conversations(file("none.parquet", b"PAR1"))


def test_parquet_without_its_library(file, monkeypatch):
    import importlib

    def lacking(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", lacking)
    with pytest.raises(DataError, match=r"pip install 'redraft\[data\]'"):
        read_conversations(file("rows.parquet", b""))


def test_a_file_without_a_row_that_can_be_used(file):
    with pytest.raises(DataError, match="none of its 2 rows is a conversation; the first is no conversation"):
        read_conversations(file("rows.jsonl", "1\n2\n"), [])
