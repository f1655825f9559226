"""What a conversation may hold, before anything renders it."""

from __future__ import annotations

import pytest

from redraft.core.errors import PromptError
from redraft.text.messages import checked_messages

USER = {"role": "user", "content": "hi"}


def calling(arguments, **more):
    return {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "F", "arguments": arguments}}], **more}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "needs its 'text', a string"),
        ([{"role": "user", "content": [{"type": "text", "text": {"a": 1}}]}], "needs its 'text', a string"),
        ([{"role": "user", "content": [{"type": "text"}]}], "needs its 'text', a string"),
        ([USER, calling('{"a": "\\ud800"}')], "half of a surrogate pair"),
        ([USER, calling({"a\udfff": 1})], "half of a surrogate pair"),
        ([{"role": "user", "content": "\ud800"}], "half of a surrogate pair"),
        ([USER, calling("[" * 100_000)], "deep"),
        ([USER, calling('{"a":' * 100 + "1" + "}" * 100)], "deeper"),
        ([USER, calling('{"a": ' + "9" * 5000 + "}")], "no JSON"),
        ([USER, calling('{"a": NaN}')], "no JSON"),
        ([USER, calling("[1]")], "must be a mapping"),
        ([USER, {"role": "tool", "tool_call_id": "1", "content": "x"}], "must follow the call"),
        ([{"role": "tool", "content": "x"}], "must follow the call"),
        ([USER, calling("{}"), USER, {"role": "tool", "content": "x"}], "must follow the call"),
        ([USER, calling("{}"), {"role": "tool", "tool_call_id": "2", "content": "x"}], "none of the calls before it"),
        ([{**USER, "tool_calls": [{"function": {"name": "F"}}]}], "belong to the assistant"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_message_is_told_by_number(messages, said):
    with pytest.raises(PromptError, match=said) as caught:
        checked_messages(messages)
    assert "message" in str(caught.value)


def test_results_of_several_calls_may_follow_each_other():
    two = {"role": "assistant", "tool_calls": [{"id": i, "function": {"name": "F"}} for i in "ab"]}
    results = [{"role": "tool", "tool_call_id": i, "content": "x"} for i in "ba"]
    checked = checked_messages([USER, two, *results])
    assert [message["tool_call_id"] for message in checked[2:]] == ["b", "a"]
    assert checked[1]["tool_calls"][0]["function"]["arguments"] == {}
