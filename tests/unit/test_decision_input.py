"""OpenAI's `input` as a state: who said what, which call got which result, and what cannot be read."""

from __future__ import annotations

import pytest

from redraft.decide.state import state_of
from redraft.server.decision_input import state_of_input
from redraft.server.errors import ApiError

CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}


def user(*parts):
    return {"role": "user", "content": list(parts)}


def text(value):
    return {"type": "input_text", "text": value}


def test_what_one_user_has_said_is_the_text():
    assert state_of_input("hello") == "hello"
    assert state_of_input([{"role": "user", "content": "hello", "type": "message"}]) == "hello"
    cached = {**text("a "), "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert state_of_input([user(cached, text("b"))]) == "a b"


def test_json_stands_on_lines_of_its_own():
    part = {"type": "input_json", "data": {"sum": 3.5, "who": "Zoë"}}
    assert state_of_input([user(text("Ticket:"), part, text("end"))]) == 'Ticket:\n{"sum": 3.5, "who": "Zoë"}\nend'
    assert state_of_input([user({"type": "input_json", "data": [{"a": 1}]})]) == '[{"a": 1}]'


def test_a_conversation_with_calls():
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "shell", "input": "ls", "namespace": "os"}
    messages = state_of_input(
        [
            {"role": "developer", "content": [text("Be kind.")]},
            {"role": "user", "content": "Wet?"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}], "phase": "commentary"},
            CALL,
            custom,
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [text("a.txt")]},
            RESULT,
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ]
    )
    assert [message["role"] for message in messages] == ["developer", "user", "assistant", "tool", "tool", "assistant"]
    assert messages[2]["content"] == "I look."
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in messages[2]["tool_calls"]
    ]
    assert calls == [("c1", "weather", {"city": "Oslo"}), ("c2", "os.shell", {"input": "ls"})]
    assert [(message["tool_call_id"], message["content"]) for message in messages[3:5]] == [
        ("c2", "a.txt"),
        ("c1", "rain"),
    ]
    assert messages[5]["content"] == "No."
    assert len(state_of(messages).messages) == 6


@pytest.mark.parametrize(
    ("items", "place", "words"),
    [
        ([1], "input.0", "must be a message"),
        ([{"role": "user"}], "input.0.content", "must be a text"),
        ([{"role": "tool", "content": "x"}], "input.0.role", "must be user"),
        ([{"role": "user", "content": "x", "tool_calls": []}], "input.0.tool_calls", "no such field"),
        ([{"type": ["message"]}], "input.0.type", "must be one of message"),
        ([{"type": None, "role": "user", "content": "x"}], "input.0.type", "must be one of message"),
        ([{"role": ["user"], "content": "x"}], "input.0.role", "must be user"),
        ([user({"type": ["input_text"], "text": "x"})], "input.0.content.0", "must be a part of type"),
        ([{**CALL, "namespace": 3}], "input.0.namespace", "must be a text"),
        ([{**CALL, "name": ["f"]}], "input.0.name", "must be a text"),
        ([{"type": "reasoning"}], "input.0.type", "must be one of message"),
        (
            [user(text("x"), {"type": "input_image", "file_id": "f"})],
            "input.0.content.1.file_id",
            "no such field",
        ),
        ([user({"type": "input_file", "file_id": "f"})], "input.0.content.0", "files are not read yet"),
        ([user({"type": "input_audio"})], "input.0.content.0", "sounds are not"),
        ([user({"type": "text", "text": "x"})], "input.0.content.0", "input_text or input_json"),
        ([user({"type": "input_json", "data": [1]})], "input.0.content.0.data", "an object or an array of objects"),
        ([user({"type": "input_json", "data": {"a": float("nan")}})], "input.0.content.0.data", "must be text or JSON"),
        ([user({**text("x"), "detail": "low"})], "input.0.content.0.detail", "no such field"),
        ([CALL, {**RESULT, "call_id": "c9"}], "input.1.call_id", "none of the calls before it"),
        ([RESULT, CALL], "input.0.call_id", "none of the calls before it"),
        ([{**CALL, "arguments": "{"}], "input.0.arguments", "no JSON"),
        ([{**CALL, "arguments": "[1]"}], "input.0.arguments", "an object"),
        ([{**CALL, "call_id": ""}], "input.0.call_id", "must be a text"),
        ([CALL, {**RESULT, "output": [{"type": "input_image"}]}], "input.1.output.0.image_url", "must be a data: URL"),
        (
            [{"role": "assistant", "content": [{"type": "input_image", "image_url": "data:"}]}],
            "input.0.content.0",
            "a picture belongs to what a user says",
        ),
    ],
)
def test_what_cannot_be_read_is_named(items, place, words):
    with pytest.raises(ApiError) as caught:
        state_of_input(items)
    assert (caught.value.status, caught.value.param) == (400, place)
    assert caught.value.message.startswith(f"{place}: ")
    assert words in caught.value.message


def test_an_object_of_messages_alone_is_a_conversation():
    messages = [{"role": "user", "content": "hello"}]
    assert state_of({"messages": messages}) == state_of(messages)
    for other in ({"messages": messages, "id": 1}, {"messages": []}, {"messages": ["hello"]}, {"messages": "hello"}):
        assert not state_of(other).messages
        assert state_of(other).text.startswith('{"messages": ')
