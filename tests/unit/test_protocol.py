"""What a reply shows of the protocol: nothing. The bundled model, through the engine."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import redraft
from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import DEAD
from redraft.core.errors import OptionError
from redraft.engine.defaults import OTHERWISE
from redraft.text.bare_calls import spelling_no_call
from redraft.text.constraint import FREE_TEXT
from redraft.text.grammar.compile import compiled
from redraft.text.grammar.core import product
from taken import takes

SENTENCE = "I can only help with music, playlists, weather, restaurants, books, films and screenings."
REQUESTS = ("play some jazz", "book a table for two", "rate this book five stars", "hello")
MODES = ({}, {"temperature": 0}, {"mode": "autoregressive", "temperature": 0}, {"mode": "verified"}, {"logprobs": True})
SYNTAX = ("<|", "|>", "call:")


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.mark.parametrize("options", MODES, ids=str)
def test_where_no_call_is_wanted_mini_says_its_sentence(mini, options):
    for text in REQUESTS:
        got = mini.generate(text, seed=0, tool_choice="none", **options)
        assert (got.text, got.tool_calls, got.finish_reason) == (SENTENCE, (), "stop")
        if got.logprobs is not None:
            assert len(got.logprobs) == len(got.token_ids)


def test_it_is_the_same_in_company_and_in_other_processes(mini):
    requests = [redraft.Request(prompt=t, options={"seed": 0, "tool_choice": "none"}) for t in REQUESTS]
    assert {got.text for got in mini.generate_batch(requests)} == {SENTENCE}
    shared = redraft.load("mini", dtype="float32", threads=2, workers=2)
    assert {got.text for got in shared.generate_batch(requests)} == {SENTENCE}


@pytest.mark.parametrize("mode", ["diffusion", "autoregressive", "verified"])
def test_a_smaller_budget_is_a_true_beginning(mini, mode):
    options = {"seed": 0, "mode": mode, **({} if mode == "diffusion" else {"temperature": 0.0})}
    for text in REQUESTS:
        whole = mini.generate(text, max_new_tokens=48, **options)
        for budget in (1, 3, 5, 9, 20, 40, 47):
            short = mini.generate(text, max_new_tokens=budget, **options)
            assert list(short.token_ids) == list(whole.token_ids[:budget]), (text, budget)
            assert whole.text.startswith(short.text)
            assert not any(sign in short.text for sign in SYNTAX)
            cut = len(whole.token_ids) > budget
            assert short.finish_reason == ("length" if cut else whole.finish_reason)
            assert short.tool_calls == (() if cut else whole.tool_calls)


def test_what_was_promised_stays_whole_within_its_budget(mini):
    """A format is a promise, unlike a call that the model may make."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    got = mini.generate("how old is she", seed=0, response_format=wanted, max_new_tokens=12)
    assert got.finish_reason == "stop"
    assert got.text.endswith("}")
    with pytest.raises(OptionError, match="max_new_tokens"):
        mini.generate("how old is she", response_format=wanted, max_new_tokens=2)


@pytest.mark.parametrize("stop", ["PlayMusic", "genre", ["a", "b"], "<|tool_call>", "call:", "{"])
def test_stop_strings_cut_no_call(mini, stop):
    free = mini.generate("play some jazz", seed=0)
    got = mini.generate("play some jazz", seed=0, stop=stop)
    assert (got.text, got.tool_calls, got.finish_reason) == (free.text, free.tool_calls, "tool_calls")


def test_plain_text_has_neither_markers_nor_parts(mini):
    got = mini.generate("play some jazz", seed=0, tools=None, skip_special_tokens=True)
    assert got.text == got.raw == "call:PlayMusic{genre:jazz}"
    assert (got.tool_calls, got.reasoning, got.finish_reason) == ((), None, "stop")


def test_text_that_spells_a_call_is_barred_and_prose_is_not():
    barred = product(compiled(FREE_TEXT), spelling_no_call())
    for text in (
        "call:f{",
        "I call:PlayMusic{genre",
        "x call: f {",
        "call:f(",
        "call:a.b-c{",
        "call:call:f{",
        "\ncall:f{",
    ):
        assert not takes(barred, text), text
    for text in (
        "call: Bob (my friend)",
        "recall:f{",
        "call f{",
        "callcall:f{",
        "call:{",
        "call:\n\nf x{",
        "a{b}(c)",
    ):
        assert takes(barred, text), text


ZEBRA = [{"type": "function", "function": {"name": "get_zebra", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize("options", MODES, ids=str)
def test_beside_declared_tools_a_call_of_another_is_the_sentence(mini, options):
    got = mini.generate("play some jazz", seed=0, tools=ZEBRA, **options)
    assert not any(sign in got.text for sign in SYNTAX)
    assert all(call.name == "get_zebra" for call in got.tool_calls)
    if "mode" not in options:
        assert got.text == SENTENCE
    declared = [tool for tool in mini.defaults.options.tools if tool["function"]["name"] == "PlayMusic"]
    both = mini.generate("play some jazz", seed=0, tools=[*ZEBRA, *declared], **options)
    assert [call.name for call in both.tool_calls] == ["PlayMusic"]


@pytest.mark.parametrize("rounds", [1, 3])
def test_what_is_said_instead_may_be_drafted_again(mini, rounds):
    for text in REQUESTS:
        got = mini.generate(text, seed=0, tool_choice="none", redraft=rounds)
        assert (got.text, got.finish_reason, got.error) == (SENTENCE, "stop", None)


def test_short_canvases_spell_no_call_either(mini):
    got = mini.generate("what is the weather", seed=0, canvas_length=4)
    assert not any(sign in got.text for sign in SYNTAX)


def test_a_model_without_a_sentence_of_its_own_says_ours(tmp_path):
    shutil.copytree(BUNDLED / "mini", tmp_path, dirs_exist_ok=True)
    known = json.loads((tmp_path / "tools.json").read_text())
    (tmp_path / "tools.json").write_text(json.dumps({"tools": known["tools"]}))
    got = redraft.load(tmp_path, dtype="float32", threads=1).generate("play some jazz", seed=0, tool_choice="none")
    assert (got.text, got.tool_calls) == (OTHERWISE, ())


@pytest.mark.parametrize(
    "options",
    [{"preset": "fast"}, {"retry_empty": False}, {"max_denoising_steps": 3}, {"adaptive_canvas": True}],
    ids=str,
)
def test_options_of_canvases_are_refused_where_there_are_none(mini, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        mini.generate("hi", mode="autoregressive", **options)


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|turn>{{ m.role }}\n{{ m.content or '' }}<turn|>\n{% endfor %}"
    "<|turn>model\n"
    "{% if messages[-1].role == 'tool' and enable_thinking %}<|channel>thought\n{% endif %}"
)
TALK = [
    {"role": "user", "content": "how hot is it"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "w", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "21"},
]
TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    directory = tmp_path_factory.mktemp("thinker")
    shutil.copytree(BUNDLED / "mini", directory, dirs_exist_ok=True)
    (directory / "tools.json").unlink()
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return redraft.load(directory, dtype="float32", threads=1)


@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}, {"tool_choice": "none"}, {"stop": ["21"]}], ids=str)
def test_a_thought_that_the_prompt_opens_is_no_answer(thinker, more):
    reply = thinker.tokenizer.encode("The tool says 21 degrees.\n<channel|>It is hot.<turn|>")
    pinned = {"initial_canvas": reply, "pinned": range(len(reply)), "seed": 0}
    got = thinker.generate(TALK, enable_thinking=True, **pinned, **more)
    assert (got.reasoning, got.text) == ("The tool says 21 degrees.", "It is hot.")
    off = thinker.generate(TALK, **pinned, **{name: value for name, value in more.items() if name == "stop"})
    assert off.reasoning is None


def test_a_constraint_asks_for_the_end_of_an_open_thought(thinker):
    sequence = thinker.prepare(TALK, enable_thinking=True, tools=TOOLS, seed=0).sequence
    automaton = sequence.constraint.automaton
    inside = automaton.advance(sequence.constraint_state, thinker.tokenizer.encode("The tool says"))
    assert inside != DEAD
    assert not automaton.accepting[inside]
    wanted = {"type": "choice", "choices": ["yes", "no"]}
    got = thinker.generate(TALK, enable_thinking=True, response_format=wanted, seed=0, max_denoising_steps=2)
    assert got.text in ("yes", "no")


@pytest.mark.parametrize(
    "options", [*MODES, {"tools": None}, {"response_format": {"type": "choice", "choices": ["a"]}}], ids=str
)
def test_what_is_no_number_is_told_under_a_constraint_too(options):
    engine = redraft.load("mini", dtype="float32", threads=1)
    with torch.no_grad():
        engine.model.backbone.layers[2].mlp.down_proj.weight[3, 5] = float("nan")
    got = engine.generate("play jazz", seed=0, **options)
    assert got.finish_reason == "error"
    assert "not finite" in str(got.error)
