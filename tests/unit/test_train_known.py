"""What a tuned model knows by heart follows its data: the calls that rows make and do not declare."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import yaml

import redraft
from redraft.checkpoint.convert import export
from redraft.checkpoint.locate import BUNDLED
from redraft.eval.data import read_rows
from redraft.eval.tool_calls import evaluate
from redraft.text.conversations import Conversation, read_conversations
from redraft.train.known import by_heart, known_calls, schema_of
from redraft.train.run import train

DEVICES, STATES, ROOMS = ("lights", "heater", "fan", "radio", "lamp"), ("on", "off"), ("kitchen", "bedroom", "garage")
RECIPE = {
    "output": "run",
    "data": [{"path": "data.jsonl"}],
    "init": "mini",
    "batch_size": 8,
    "warmup_steps": 5,
    "learning_rate": 2e-3,
    "held_out": 0.0,
    "ema": 0.9,
    "threads": 1,
}
PROPERTIES = {name: {"type": "string"} for name in ("device", "room", "state")}
SET_DEVICE = {
    "type": "function",
    "function": {"name": "SetDevice", "parameters": {"type": "object", "properties": PROPERTIES}},
}


def calling(text, name, arguments, **fields):
    call = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "tool_calls": [call]}], **fields}


def own_tool(**fields):
    every = (dict(zip(("device", "state", "room"), one, strict=True)) for one in product(DEVICES, STATES, ROOMS))
    return [
        calling("turn {state} the {device} in the {room}".format(**one), "SetDevice", one, **fields) for one in every
    ]


def tuned(folder: Path, rows: list[dict], **changes) -> Path:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | changes))
    return Path(train(folder / "recipe.yaml")["model"])


def test_a_tool_of_ones_own_is_learned_and_allowed(tmp_path):
    model = tuned(tmp_path, own_tool(), steps=30, trim_fill=0.7)
    assert json.loads((model / "tools.json").read_text()) == {"tools": [SET_DEVICE]}
    assert not (model / "presets.json").exists(), "figures of other weights"
    rows = read_rows(tmp_path / "data.jsonl")
    measures = evaluate(redraft.load(model, threads=1), rows, limit=10)
    assert measures["valid_calls"] == 1
    assert measures["exact_match"] >= 0.3, "0.0 where replies are held to mini's own seven calls"


def test_declared_calls_are_not_known_by_heart(tmp_path):
    model = tuned(tmp_path, own_tool(tools=[SET_DEVICE]), steps=1)
    assert not (model / "tools.json").exists()
    assert not (model.parent / "last" / "tools.json").exists()


def test_what_an_earlier_run_has_left_goes(tmp_path):
    spoken = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}] * 8
    for name in ("model", "last"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "tools.json").write_text('{"tools": []}')
    model = tuned(tmp_path, spoken, steps=1)
    assert not (model / "tools.json").exists()
    assert not (model.parent / "last" / "tools.json").exists()


def test_the_same_weights_in_another_form_know_what_they_knew(tmp_path):
    export(BUNDLED / "mini", tmp_path)
    assert (tmp_path / "tools.json").read_bytes() == (BUNDLED / "mini" / "tools.json").read_bytes()


def test_what_is_known_by_heart_stands_in_no_prompt(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(BUNDLED / "mini", model)
    template = model / "chat_template.jinja"
    template.write_text("{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}" + template.read_text())
    engine = redraft.load(model, threads=1)
    lengths = [
        engine.generate("hi", seed=0, max_new_tokens=1, **options).stats.prompt_tokens
        for options in ({}, {"tools": None}, {"tools": [SET_DEVICE]})
    ]
    assert lengths[0] == lengths[1] < lengths[2]


def test_calls_are_gathered_from_every_turn_that_is_learned(tmp_path):
    call = calling("a", "B.x", {"n": 1, "s": "t"})
    more = calling("b", "B.x", {"n": 2.5, "z": [1, 2]})["messages"]
    unlearned = calling("c", "C", {})["messages"]
    unlearned[1]["weight"] = 0
    row = {"messages": call["messages"] + more + unlearned}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, (row, calling("d", "A", {}), calling("e", "D", {}, tools=[SET_DEVICE])))))
    found = known_calls(read_conversations(path))
    assert [tool["function"]["name"] for tool in found] == ["A", "B.x"]
    assert found[1]["function"]["parameters"]["properties"] == {
        "n": {"type": "number"},
        "s": {"type": "string"},
        "z": {"type": "array", "items": {"type": "integer"}},
    }
    assert known_calls([Conversation([{"role": "user", "content": "hi"}], 1)]) == []


def test_the_sentence_in_place_of_a_call_is_what_most_replies_without_one_say(tmp_path):
    path = tmp_path / "rows.jsonl"
    said = [
        {"messages": [{"role": "user", "content": str(i)}, {"role": "assistant", "content": "No."}]} for i in (1, 2)
    ]
    other = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Yes."}]}
    calls = [calling("a", "A", {})]
    for rows, sentence in (
        ([*calls, *said], "No."),
        ([*calls, *said, other], "No."),
        ([*calls, *said, other, other], None),
        ([*calls, other], None),
        ([*calls, *({**row, "tools": [SET_DEVICE]} for row in said)], None),
        (calls, None),
    ):
        path.write_text("\n".join(map(json.dumps, rows)))
        known = by_heart(read_conversations(path))
        assert [tool["function"]["name"] for tool in known["tools"]] == ["A"]
        assert known.get("otherwise") == sentence
    path.write_text("\n".join(map(json.dumps, said)))
    assert by_heart(read_conversations(path)) == {}, "without a call there is nothing to say it in place of"


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        (["a", "b"], {"type": "string"}),
        ([1, 2], {"type": "integer"}),
        ([1, 2.5], {"type": "number"}),
        ([True, False], {"type": "boolean"}),
        ([True, 1], {}),
        (["a", None], {"type": ["string", "null"]}),
        ([1, 2.5, None], {"type": ["number", "null"]}),
        ([None], {"type": "null"}),
        (["a", 1], {}),
        ([[], ["a"]], {"type": "array", "items": {"type": "string"}}),
        ([{}], {"type": "object"}),
        ([{"a": [1]}], {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}}),
    ],
)
def test_the_type_that_all_values_have(values, schema):
    assert schema_of(values) == schema
