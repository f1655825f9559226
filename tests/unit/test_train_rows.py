"""Rows on their way into training: tools, fields that templates print, lengths, and what comes before a row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from redraft.checkpoint.locate import BUNDLED
from redraft.core.errors import DataError, RecipeError
from redraft.text.chat import ChatTemplate
from redraft.text.conversations import Conversation
from redraft.text.tokenizer import Tokenizer
from redraft.train import run as run_module
from redraft.train import start
from redraft.train.augment import Augmentation
from redraft.train.data import _fraction, open_stream
from redraft.train.examples import Encoder
from redraft.train.recipe import read_recipe
from redraft.train.run import train
from tiny_recipe import RECIPE, conversation

# Prints everything that a row may say.
TEMPLATE = """{{ bos_token }}{% for tool in tools or [] %}<|tool>{{ tool.function.name }}<tool|>{% endfor %}
{%- for message in messages %}<|turn>{{ message.role }}{{ message.name or '' }}
{% if message.reasoning_content %}<|channel>{{ message.reasoning_content }}<channel|>{% endif %}
{%- for call in message.tool_calls or [] %}<|tool_call>call:{{ call.function.name }}{}<tool_call|>{% endfor %}
{{- message.content or '' }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>assistant
{% endif %}"""


def tool(name):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


def row(text="hi", tools=None, line=1, **reply):
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "ho", **reply}]
    return Conversation(messages, line, tools)


def calling(text, name, tools, **arguments):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return Conversation(
        [{"role": "user", "content": text}, {"role": "assistant", "content": None, "tool_calls": [call]}], 1, tools
    )


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_directory(BUNDLED / "mini")


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, ChatTemplate(TEMPLATE, {"bos_token": "<bos>"}), 64)


@pytest.fixture
def plain(tokenizer):
    return Encoder(tokenizer, ChatTemplate.from_directory(BUNDLED / "mini"), 64)


@pytest.fixture
def recipe(tmp_path):
    def write(rows, **changes):
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | changes))
        return tmp_path / "recipe.yaml"

    return write


def test_a_prompt_declares_the_tools_of_its_row(encoder):
    declared = row(tools=[tool("get_zebra_count")])
    [example] = encoder.examples(declared, "rows.jsonl")
    prompt = encoder.template.render(declared.messages[:1], tools=declared.tools)
    assert "<|tool>get_zebra_count<tool|>" in prompt
    assert example.prompt == encoder.tokenizer.encode(prompt)


def test_a_tokenizer_is_made_of_what_is_declared(recipe, tmp_path, monkeypatch):
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    seen = []
    make = start.train_tokenizer
    monkeypatch.setattr(
        start, "train_tokenizer", lambda texts, size, more: make(seen.extend(texts) or seen, size, more)
    )
    rows = [conversation(i) | {"tools": [tool("Call"), tool("get_zebra_count")]} for i in range(32)]
    settings = {"vocab_size": 420, "chat_template": "template.jinja"}
    train(recipe(rows, tokenizer=settings, steps=1, held_out=0.0))
    assert len(seen) == 32
    assert all("<|tool>get_zebra_count<tool|>" in text for text in seen)


def test_turns_of_weight_0_are_context(encoder):
    turns = row("a", weight=0).messages + row("b").messages
    [example] = encoder.examples(Conversation(turns, 1), "rows.jsonl")
    assert encoder.tokenizer.decode(example.prompt).count("assistant") == 2
    with pytest.raises(DataError, match="line 1: has no assistant message"):
        encoder.examples(row(weight=0), "rows.jsonl")


@pytest.mark.parametrize(("field", "place"), [("reasoning_content", 1), ("name", 0)])
def test_what_the_template_does_not_print_is_refused(encoder, plain, field, place):
    said = row(line=7)
    said.messages[place][field] = "because"
    [example] = encoder.examples(said, "rows.jsonl")
    assert "because" in encoder.tokenizer.decode(example.prompt + example.response)
    with pytest.raises(DataError, match=f"rows.jsonl, line 7: .*'{field}'"):
        plain.examples(said, "rows.jsonl")
    said.messages[place][field] = ""
    assert plain.examples(said, "rows.jsonl")


def test_a_template_that_runs_too_deep_names_the_row(plain):
    value: list = []
    for _ in range(2000):
        value = [value]
    with pytest.raises(DataError, match="line 1: message 1: nested deeper than 64 levels"):
        plain.examples(calling("hi", "A", None, x=value), "rows.jsonl")


def test_what_comes_before_was_said_under_the_same_tools_and_no_instruction():
    one, other = [tool("A")], [tool("B")]
    instructed = Conversation([{"role": "system", "content": "be rude"}, *row("s", one).messages], 1, one)
    open_ended = Conversation([*row("o", one).messages, {"role": "user", "content": "and?"}], 1, one)
    rows = [row("a1", one), row("b1", other), row("n1"), row("a2", one), instructed, open_ended]
    augment, rng = Augmentation(rows, earlier_turn=1.0), np.random.default_rng(0)
    for first, partners in ((rows[0], {"a1", "a2"}), (rows[1], {"b1"}), (rows[2], {"n1"})):
        changed = [augment(first, rng) for _ in range(40)]
        assert {found.messages[0]["content"] for found in changed} == partners
        assert {found.context for found in changed} == {2}
        assert all(found.tools == first.tools for found in changed)
    assert augment(instructed, rng).messages == instructed.messages
    alone = Augmentation([instructed, row("c", other)], earlier_turn=1.0)
    assert alone(row("a", one), rng).messages == row("a", one).messages


def test_values_are_those_of_the_same_declaration():
    one, other = [tool("A")], [tool("B"), tool("A")]
    rows = [calling("x is red", "A", one, x="red"), calling("x is blue", "A", other, x="blue")]
    augment, rng = Augmentation(rows, swap=1.0), np.random.default_rng(0)
    assert {augment(rows[0], rng).messages[0]["content"] for _ in range(20)} == {"x is red"}


def test_context_is_not_learned_again(encoder):
    earlier = row("a").messages
    [example] = encoder.examples(Conversation([*earlier, *row("b").messages], 1, context=len(earlier)), "rows.jsonl")
    assert "b" in encoder.tokenizer.decode(example.prompt)


@pytest.mark.parametrize("is_held_out", [False, True])
def test_a_row_that_the_template_refuses_is_found_before_anything_is_trained(recipe, monkeypatch, is_held_out):
    rows = [conversation(i) for i in range(200)]
    refused = ([{"role": "tool", "content": "1"}, *conversation(i)["messages"]] for i in range(16))
    bad = next(row for row in refused if (_fraction(Conversation(row, 1)) < 0.5) is is_held_out)
    path = recipe([*rows, {"messages": bad}], init="mini", model=None, tokenizer=None, held_out=0.5)
    monkeypatch.setattr(run_module, "load_start", lambda *_: pytest.fail("the weights are read"))
    with pytest.raises(DataError, match="line 201: .*tool result must follow"):
        train(path)


def test_a_row_that_a_tokenizer_is_made_of_is_named(recipe):
    bad = {"messages": [{"role": "tool", "content": "1"}, *conversation(1)["messages"]]}
    with pytest.raises(DataError, match="line 33: .*tool result must follow"):
        train(recipe([*(conversation(i) for i in range(32)), bad], held_out=0.0))


def test_no_row_fits(recipe, capsys):
    rows = [{"messages": row("word " * (200 + i)).messages} for i in range(20)]
    with pytest.raises(RecipeError, match=r"max_length 64 leaves no room for any of 20 rows.* 2\d\d to 2\d\d tokens"):
        train(recipe(rows, init="mini", model=None, tokenizer=None, max_length=64, held_out=0.0))


def test_rows_that_are_left_out_are_counted(recipe, capsys):
    long = [{"messages": row("word " * 200).messages} for i in range(3)]
    cut = {"messages": row(content="word " * 200).messages}
    rows = [*(conversation(i) for i in range(16)), *long, cut]
    fields = {"init": "mini", "model": None, "tokenizer": None, "max_length": 64, "held_out": 0.0, "steps": 1}
    found = train(recipe(rows, **fields))
    assert (found["rows_left_out"], found["replies_cut"]) == (3, 1)
    err = capsys.readouterr().err
    assert "3 of 20 rows are left out" in err
    assert "1 replies are cut" in err


def test_declarations_that_are_not_printed_are_told(recipe, capsys):
    rows = [conversation(i) | {"tools": [tool("Call")]} for i in range(5)]
    train(recipe(rows, init="mini", model=None, tokenizer=None, held_out=0.0, steps=1))
    err = capsys.readouterr().err
    assert "prints no declarations: those of 5 rows" in err
    assert "5 rows, less than a batch of 8" in err


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"held_out": 0.99}, "all 4 rows are held out"),
        ({"data": [{"path": "data.jsonl", "share": 0.01}], "held_out": 0.0}, "share 0.01 of 4 rows is none"),
    ],
)
def test_too_little_to_train_on(recipe, changes, reason):
    with pytest.raises(RecipeError, match=f"data.jsonl: {reason}"):
        train(recipe([conversation(i) for i in range(4)], **changes))


def test_an_epoch_whose_changes_are_too_long_takes_the_rows_as_they_are(recipe):
    rows = [{"messages": row(f"say {i} " + "word " * 40).messages} for i in range(4)]
    fields = {"init": "mini", "model": None, "tokenizer": None, "max_length": 64, "augment": {"earlier_turn": 1.0}}
    fields = read_recipe(recipe(rows, held_out=0.0, batch_size=2, **fields), [])
    batch = open_stream(fields, Path(BUNDLED / "mini"), 48, 1).batch(0)
    assert batch.tokens.shape[0] == 2
