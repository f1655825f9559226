"""Chat templates: mini's own, and how bad messages and bad templates are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from redraft.core.errors import CheckpointError, PromptError
from redraft.text.chat import ChatTemplate
from redraft.text.output import parse_reply

SOURCE = (Path(__file__).parent.parent.parent / "recipes" / "mini" / "chat_template.jinja").read_text()
USER = {"role": "user", "content": "hi"}


@pytest.fixture
def template():
    return ChatTemplate(SOURCE, {"bos_token": "<bos>"})


def calling(arguments, **more):
    return {"role": "assistant", "tool_calls": [{"function": {"name": "F", "arguments": arguments}}], **more}


def test_a_prompt_ends_where_the_model_begins(template):
    assert template.render([USER]) == "<bos><|turn>user\nhi<turn|>\n<|turn>model\n"


def test_every_reply_continues_its_prompt(template):
    conversation = [
        {"role": "system", "content": "be kind"},
        USER,
        calling('{"a": "x", "n": 1, "b": true, "z": null, "l": ["y", 2.5], "m": {"k": "v"}}'),
        {"role": "tool", "name": "F", "content": "done"},
        {"role": "assistant", "content": "It is done."},
        USER,
        {"role": "assistant", "content": "Hello."},
    ]
    for turn, message in enumerate(conversation):
        if message["role"] == "assistant":
            prompt = template.render(conversation[:turn])
            assert template.render(conversation[: turn + 1], add_generation_prompt=False).startswith(prompt)
    text = template.render(conversation, add_generation_prompt=False)
    assert text.count("<|turn>model") == 2
    assert text.endswith("Hello.<turn|>\n")
    call = parse_reply(text[text.index("<|tool_call>") : text.index("<|tool_response>")]).tool_calls[0]
    assert call.arguments == {"a": "x", "n": 1, "b": True, "z": None, "l": ["y", 2.5], "m": {"k": "v"}}
    assert list(call.arguments) == ["a", "n", "b", "z", "l", "m"]
    assert not call.repaired


def test_arguments_stay_in_the_order_they_were_written(template):
    text = template.render([USER, calling({"z": "1", "a": "2"}), USER])
    assert 'F{z:<|"|>1<|"|>,a:<|"|>2<|"|>}' in text


def test_content_may_come_in_text_parts(template):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert "user\nab<turn|>" in template.render([{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "empty"),
        (["hi"], "message 0 must be a mapping"),
        ([USER, {"role": "robot", "content": "x"}], "message 1 has role 'robot'"),
        ([{"role": "user"}], "message 0 has neither"),
        ([{"role": "user", "content": " \n"}], "message 0 is an empty"),
        ([{"role": "assistant"}], "neither content nor tool_calls"),
        ([{"role": "user", "content": 3}], "content must be text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "text alone"),
        ([USER, calling("{")], "arguments of F are no JSON"),
        ([USER, calling([1])], "must be a mapping"),
        ([USER, {"role": "assistant", "tool_calls": [{"name": "F"}]}], "function.name"),
        ([{"role": "tool", "content": "x"}], "must follow the call"),
    ],
)
def test_bad_messages_are_told(template, messages, reason):
    with pytest.raises(PromptError, match=reason):
        template.render(messages)


def test_a_template_cannot_reach_out_of_its_sandbox():
    template = ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(PromptError):
        template.render([USER])


def test_a_broken_template_is_told():
    with pytest.raises(CheckpointError, match="chat template"):
        ChatTemplate("{% for %}")


def test_a_directory_may_hold_it_in_either_file(tmp_path):
    assert ChatTemplate.from_directory(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": "{{ bos_token }}x", "bos_token": {"content": "B"}}'
    )
    found = ChatTemplate.from_directory(tmp_path)
    assert found is not None
    assert found.render([USER]) == "Bx"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}y")
    found = ChatTemplate.from_directory(tmp_path)
    assert found is not None
    assert found.render([USER]) == "By"
