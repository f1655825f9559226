"""Declarations of tools as trees of calls, and response formats as trees of replies."""

from __future__ import annotations

import random
from typing import Any

import pytest

from grammar_matches import matches, some_texts
from redraft.core.errors import OptionError, SchemaError
from redraft.text.call_pattern import MOST_IN_ANY_ORDER, calls_node
from redraft.text.markers import CALL_CLOSE, CALL_OPEN, QUOTE
from redraft.text.response_format import response_node

MARKS = {CALL_OPEN: "\ue000", CALL_CLOSE: "\ue001", QUOTE: "\ue002"}
PLAY = {
    "name": "Play",
    "parameters": {
        "type": "object",
        "properties": {"artist": {"type": "string"}, "year": {"type": "integer"}, "a b": {"enum": ["a", None]}},
        "required": ["artist"],
    },
}
STOP = {"type": "function", "function": {"name": "Stop", "parameters": {}}}
MAYBE = {"name": "Maybe", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}


def marked(text: str) -> str:
    for token, mark in MARKS.items():
        text = text.replace(token, mark)
    return text


def takes(tools: list[Any], text: str, choice: str = "required", parallel: bool = True) -> bool:
    return matches(calls_node(tools, choice, MARKS, parallel), marked(text))


def call(inside: str) -> str:
    return f"{CALL_OPEN}call:{inside}{CALL_CLOSE}"


@pytest.mark.parametrize(
    ("inside", "held"),
    [
        ('Play{artist:<|"|>ABBA<|"|>}', True),
        ('Play{year:1979,artist:<|"|>ABBA<|"|>}', True),
        ('Play{<|"|>a b<|"|>:<|"|>a<|"|>,artist:<|"|>"<|"|>,year:1}', True),
        ("Play{year:1979}", False),
        ("Play{}", False),
        ('Play{artist:<|"|>a<|"|>,artist:<|"|>b<|"|>}', False),
        ('Play{artist:<|"|>a<|"|>,}', False),
        ('Play{artist:<|"|>a<|"|>,year:1.5}', False),
        ("Stop{}", True),
        ("Stop{a:1}", False),
        ("Maybe{}", True),
        ("Maybe{n:1}", True),
        ("Maybe{n:1,n:2}", False),
        ("Other{}", False),
    ],
)
def test_arguments_come_in_any_order_once(inside, held):
    assert takes([PLAY, STOP, MAYBE], call(inside)) == held


def test_how_many_calls_and_which():
    two = call("Stop{}") * 2
    assert takes([PLAY, STOP], two)
    assert not takes([PLAY, STOP], two, parallel=False)
    assert not takes([PLAY, STOP], two, choice="Stop")
    assert not takes([PLAY, STOP], "")
    assert takes([PLAY, STOP], call("Stop{}"), choice="Stop")
    assert not takes([PLAY, STOP], call("Stop{}"), choice="Play")


def test_many_required_arguments_come_as_they_are_declared():
    names = [f"a{number}" for number in range(MOST_IN_ANY_ORDER + 1)]
    tool = {"name": "f", "parameters": {"properties": {name: {"type": "null"} for name in names}, "required": names}}
    assert takes([tool], call(f"f{{{','.join(f'{name}:null' for name in names)}}}"))
    assert not takes([tool], call(f"f{{{','.join(f'{name}:null' for name in reversed(names))}}}"))


def test_references_lead_into_the_parameters():
    parameters = {"properties": {"c": {"$ref": "#/$defs/c"}}, "required": ["c"], "$defs": {"c": {"enum": [1, 2]}}}
    assert takes([{"name": "f", "parameters": parameters}], call("f{c:2}"))
    assert not takes([{"name": "f", "parameters": parameters}], call("f{c:3}"))


def test_values_that_cannot_be_held_are_of_their_type_at_least_unless_strict():
    parameters = {"properties": {"c": {"type": "array", "contains": {"const": 1}}}}
    assert takes([{"name": "f", "parameters": parameters}], call('f{c:[2,<|"|>x<|"|>]}'))
    assert not takes([{"name": "f", "parameters": parameters}], call('f{c:<|"|>x<|"|>}'))
    with pytest.raises(SchemaError, match=r"^schema: f\.c\.contains: .*prefixItems") as caught:
        calls_node([{"name": "f", "parameters": parameters, "strict": True}], "required", MARKS)
    assert caught.value.option == "tools"


def test_128_tools_are_one_tree():
    tools = [{**PLAY, "name": f"Play{number}"} for number in range(128)]
    node = calls_node(tools, "auto", MARKS)
    assert matches(node, marked(call('Play127{artist:<|"|>a<|"|>}')))
    assert all(matches(node, text) for text in some_texts(node, random.Random(0), 20))


def test_without_marks_there_are_no_calls():
    with pytest.raises(OptionError, match="no <\\|tool_call>"):
        calls_node([STOP], "auto", {})


@pytest.mark.parametrize(
    ("wanted", "yes", "no"),
    [
        ({"type": "json_object"}, '{"a": [1, null], "ä": {"b": ""}}', "[1]"),
        ({"type": "json_object", "schema": {"properties": {"a": {"type": "integer"}}}}, '{"a":1}', '{"a":""}'),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [1]}}}, "1", "2"),
        ({"type": "json_schema", "schema": True}, '"a"', "a"),
        ({"type": "regex", "pattern": "(?i)yes|no"}, "YES", "yesno"),
        ({"type": "choice", "choices": ["a.b", "c"]}, "a.b", "axb"),
    ],
)
def test_response_formats_are_trees(wanted, yes, no):
    node = response_node(wanted)
    assert node is not None
    assert matches(node, yes)
    assert not matches(node, no)


def test_any_text_is_no_tree():
    assert response_node({"type": "text"}) is None


@pytest.mark.parametrize(
    ("wanted", "instead"),
    [
        ({"type": "regex", "pattern": "a(?=b)"}, "as alternatives"),
        ({"type": "regex", "pattern": "a", "flags": "i"}, "no field 'flags'"),
        ({"type": "choice", "choices": ["a\ue001"]}, "leave it out"),
        ({"type": "choice", "choices": [""]}, "not empty"),
        ({"type": "json_object", "schema": 3}, "needs a 'schema'"),
        ({"type": "yaml"}, "must be one of"),
    ],
)
def test_response_formats_that_cannot_work(wanted, instead):
    with pytest.raises(OptionError, match=instead):
        response_node(wanted)


def test_a_function_of_many_arguments_has_them_in_their_order():
    properties = {f"key_{number}": {"type": "integer"} for number in range(120)}
    tool = {"name": "Log", "parameters": {"type": "object", "properties": properties, "required": ["key_7"]}}
    assert takes([tool], call("Log{key_3:1,key_7:2,key_119:3}"))
    assert not takes([tool], call("Log{key_7:2,key_3:1}"))
    assert not takes([tool], call("Log{key_3:1}"))
