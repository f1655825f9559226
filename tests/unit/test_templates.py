"""Chat templates as they are published: where they stand, how they are written, what is said of a broken one."""

from __future__ import annotations

import json
import shutil

import pytest

import redraft
from redraft.checkpoint.locate import BUNDLED
from redraft.core.errors import CheckpointError, PromptError
from redraft.text.chat import ChatTemplate

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}


def found(directory) -> ChatTemplate:
    template = ChatTemplate.from_directory(directory)
    assert template is not None
    return template


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.json"])
def test_a_list_of_templates_is_used(tmp_path, where):
    named = [
        {"name": "default", "template": "plain {{ messages[0].content }}"},
        {"name": "tool_use", "template": "tools"},
    ]
    (tmp_path / where).write_text(json.dumps({"chat_template": named}))
    assert found(tmp_path).render([USER]) == "plain hi"
    assert found(tmp_path).render([USER], tools=[TOOL]) == "tools"
    (tmp_path / where).write_text(json.dumps({"chat_template": named[:1]}))
    assert found(tmp_path).render([USER], tools=[TOOL]) == "plain hi"


def test_further_templates_may_stand_beside_it(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("plain")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert found(tmp_path).render([USER]) == "plain"
    assert found(tmp_path).render([USER], tools=[TOOL]) == "tools"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([{"name": "rag", "template": "x"}], "none is 'default'"),
        ([{"template": "x"}], "needs a name"),
        ([{"name": "default", "template": 3}], "needs a name and a template"),
        (["x"], "a list of named ones"),
        ([], "a list of named ones"),
        (7, "a list of named ones"),
    ],
)
def test_what_is_no_template_is_refused_by_file(tmp_path, value, said):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(CheckpointError, match=said) as caught:
        ChatTemplate.from_directory(tmp_path)
    assert "tokenizer_config.json" in str(caught.value)


def test_the_bundled_model_answers_with_its_template_in_a_list(tmp_path):
    shutil.copytree(BUNDLED / "mini", tmp_path, dirs_exist_ok=True)
    source = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"chat_template": [{"name": "default", "template": source}]})
    )
    assert redraft.load(tmp_path, threads=1).tokenize("play jazz") == redraft.load("mini", threads=1).tokenize(
        "play jazz"
    )


def test_what_trainers_mark_is_what_stands_there():
    source = "{% for m in messages %}\n{% generation %}\n{{ m.content }}{% endgeneration %}\n!{% endfor %}"
    plain = source.replace("{% generation %}\n", "").replace("{% endgeneration %}\n", "")
    assert ChatTemplate(source).render([USER, USER]) == ChatTemplate(plain).render([USER, USER])


@pytest.mark.parametrize(
    "how",
    ["", "(indent=2)", "(separators=(',', ':'))", "(sort_keys=true)", "(ensure_ascii=true)", "(ensure_ascii=false)",
     "(sort_keys=true, indent=1, separators=(', ', ' = '), ensure_ascii=true)"],
)  # fmt: skip
def test_tojson_takes_what_transformers_takes(how):
    """Beside transformers' own renderer, byte by byte, and the same where someone's words are guarded."""
    chat_template = pytest.importorskip("transformers.utils.chat_template_utils")
    tools = [{"type": "function", "function": {"name": "f", "b": [1, 2.5, None, True], "a": "größe <é> 😀 \"'"}}]
    source = "{% for t in tools %}{{ t | tojson" + how + " }}{% endfor %}{{ messages | tojson" + how + " }}"
    expected, _ = chat_template.render_jinja_template([[USER]], tools=tools, chat_template=source)
    assert ChatTemplate(source).render([USER], tools=tools) == expected[0].replace('"role"', '"role"')
    tokenizer = redraft.load("mini", threads=1).tokenizer
    assert tokenizer is not None
    assert ChatTemplate(source).prompt(tokenizer, [USER], tools=tools).text == expected[0]


ARGUMENTS = {"a": 1, "b": [True, None, {"c": "d"}]}
CONVERSATION = [
    {"role": "system", "content": [{"type": "text", "text": " be "}, {"type": "text", "text": "kind "}]},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "F", "arguments": ARGUMENTS}},
            {"id": "y", "type": "function", "function": {"name": "G", "arguments": {}}},
        ],
    },
    {"role": "tool", "tool_call_id": "y", "content": [{"type": "text", "text": "done"}]},
    {"role": "tool", "tool_call_id": "x", "name": "N", "content": "x"},
    {"role": "assistant", "content": [{"type": "text", "text": "It is."}]},
    {"role": "user", "content": "more"},
]  # fmt: skip


@pytest.mark.parametrize("count", range(1, len(CONVERSATION) + 1))
@pytest.mark.parametrize("more", [True, False])
def test_any_standard_rendering_of_minis_template_is_ours(count, more):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(BUNDLED / "mini"))
    ours = found(BUNDLED / "mini").render(CONVERSATION[:count], add_generation_prompt=more)
    assert theirs.apply_chat_template(CONVERSATION[:count], tokenize=False, add_generation_prompt=more) == ours


def test_the_recipes_template_is_the_models():
    recipe = BUNDLED.parents[2] / "recipes" / "mini" / "chat_template.jinja"
    assert recipe.read_bytes() == (BUNDLED / "mini" / "chat_template.jinja").read_bytes()


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("one\ntwo {{ 1 / 0 }}", 2),
        ("{{ 'a' + 1 }}", 1),
        ("\n\n{{ raise_exception('no system turns here') }}", 3),
        ("\n{{ messages.nothing.at_all }}", 2),
        ("{% macro m(n) %}\n{{ m(n + 1) }}\n{% endmacro %}{{ m(0) }}", 2),
        ("x\n\n\n{{ messages | nosuchfilter }}", 4),
        ("x\n{% for %}", 2),
        ("x\n{% generation %}", 2),
    ],
)
def test_an_error_in_a_template_is_one_line_that_says_where(source, line):
    with pytest.raises((PromptError, CheckpointError)) as caught:
        ChatTemplate(source).render([USER])
    assert f"line {line}" in str(caught.value)
    assert "\n" not in str(caught.value)
