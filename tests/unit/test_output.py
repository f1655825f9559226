"""Replies taken apart: thought channel, well-formed calls, garbled calls, and what is no call."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redraft.core.errors import InputError
from redraft.core.results import ToolCall
from redraft.text.call_reader import MAX_DEPTH
from redraft.text.call_text import render_call
from redraft.text.output import parse_reply

MARKERS = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>')
TURN_MARKERS = ("<turn|>", "<|turn>", "<eos>", "<pad>", "<bos>")

strings = st.text(max_size=5) | st.lists(
    st.sampled_from([*",{}[]()\"':=\\ \n-1a", *MARKERS[:4], *TURN_MARKERS, '<|"|', "call:A{x:1}"]), max_size=5
).map("".join)
# Hypothesis also draws string constants of the modules under test, the delimiter among them.
strings = strings.filter(lambda text: '<|"|>' not in text)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings
keys = st.sampled_from(["a", "b-c", "d.e", "call", "x_1", "true", "größe", "1"]) | strings
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=5
)


def only_call(reply: str) -> ToolCall:
    parsed = parse_reply(reply)
    assert (parsed.text, len(parsed.tool_calls)) == ("", 1), parsed
    return parsed.tool_calls[0]


def typed(value: object) -> str:
    """JSON keeps apart what Python's == takes for equal: 1, 1.0 and True; the order of keys counts too."""
    return json.dumps(value)


@settings(max_examples=200, deadline=None)
@given(arguments=st.dictionaries(keys, values, max_size=4))
@example(arguments={"x": '}<tool_call|><|tool_call>call:B{y:"'})
@example(arguments={"call": {"a": 1}, "b": [[], {}, [{}]], "c": -0.0, "d": 1e300, "e": 10**30})
def test_a_rendered_call_reads_back_as_it_was(arguments: dict) -> None:
    call = only_call(render_call("Play.Music-2", arguments))
    assert (call.name, call.repaired) == ("Play.Music-2", False)
    assert typed(call.arguments) == typed(arguments)


def test_rendered_text_is_the_protocol() -> None:
    arguments = {"k": "v", "n": 1, "b": True, "list": ["a", 2], "m": {"x": None, "odd key": 0.5}}
    rendered = '{k:<|"|>v<|"|>,n:1,b:true,list:[<|"|>a<|"|>,2],m:{x:null,<|"|>odd key<|"|>:0.5}}'
    assert render_call("NAME", arguments) == f"<|tool_call>call:NAME{rendered}<tool_call|>"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("", {}),
        ("two words", {}),
        ("A", {"x": 'a<|"|>b'}),
        ("A", {'<|"|>': 1}),
        ("A", {"x": float("nan")}),
        ("A", {"x": [float("inf")]}),
        ("A", {"x": {1: 2}}),
        ("A", {"x": b"bytes"}),
        ("A", {"x": object()}),
        ("A", {"x": 10**5000}),
    ],
)
def test_what_the_protocol_cannot_hold_is_refused(name: str, arguments: dict) -> None:
    with pytest.raises(InputError):
        render_call(name, arguments)


def test_depth_is_bounded() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert only_call(render_call("A", {"x": value})).arguments == {"x": value}
    with pytest.raises(InputError, match="nested deeper than 64"):
        render_call("A", {"x": [value]})
    deep = "[" * 5000 + "1" + "]" * 5000
    assert parse_reply(f"<|tool_call>call:A{{x:{deep}}}<tool_call|>").tool_calls[0].repaired


def test_white_space_between_tokens_is_no_repair() -> None:
    reply = (
        '<|tool_call> call: A {\n k : <|"|> v <|"|> ,\n n :1 , l: [ 1 , 2 ] , m : { x : null } ,'
        " e : { } , f : [ ]\n} <tool_call|>"
    )
    arguments = {"k": " v ", "n": 1, "l": [1, 2], "m": {"x": None}, "e": {}, "f": []}
    assert only_call(reply) == ToolCall(name="A", arguments=arguments)


@pytest.mark.parametrize(
    ("written", "value"),
    [("7", 7), ("-7", -7), ("0.5", 0.5), ("-1.5e-3", -0.0015), ("2E+2", 200.0), ("true", True), ("null", None)],
)
def test_numbers_and_literals(written: str, value: object) -> None:
    call = only_call(f"<|tool_call>call:A{{x:{written}}}<tool_call|>")
    assert not call.repaired
    assert typed(call.arguments["x"]) == typed(value)


@pytest.mark.parametrize("written", ["007", "1.", "+1", "1e999", "0x10", "1,5", "٣", "9" * 5000, "TRUE"])
def test_what_is_no_json_number_stays_text(written: str) -> None:
    call = only_call(f"<|tool_call>call:A{{x:{written}}}<tool_call|>")
    assert call == ToolCall(name="A", arguments={"x": written}, repaired=True)


GARBLED = {
    'call:A(k="v")': {"k": "v"},
    'call:A(k="v", n=2, ok=True, none=None)': {"k": "v", "n": 2, "ok": True, "none": None},
    "call:A()": {},
    "call:A{": {},
    "call:A{n:1}": {"n": 1},
    "call:A{n:1}<tool_call|>": {"n": 1},
    "<|tool_call>call:A<tool_call|>": {},
    "<|tool_call>A{n:1}<tool_call|>": {"n": 1},
    "<|tool_call>call:A{n:1}": {"n": 1},
    "<|tool_call>call:A{n:1": {"n": 1},
    "<|tool_call>call:A{n:1<tool_call|>": {"n": 1},
    "<|tool_call>call:A{n:1}}<tool_call|>": {"n": 1},
    "<|tool_call>call:A{n:1)<tool_call|>": {"n": 1},
    "<|tool_call>call:A(k='v'}<tool_call|>": {"k": "v"},
    "<|tool_call>call:A{l:[1,2}<tool_call|>": {"l": [1, 2]},
    "<|tool_call>call:A{m:{x:1}<tool_call|>": {"m": {"x": 1}},
    '<|tool_call>call:A{,n:1,,k:<|"|>v<|"|>,}<tool_call|>': {"n": 1, "k": "v"},
    '<|tool_call>call:A{k:<|"|>v<|"|> n:1}<tool_call|>': {"k": "v", "n": 1},
    "<|tool_call>call:A{n:1\n k:v}<tool_call|>": {"n": 1, "k": "v"},
    "<|tool_call>call:A{n:1,n:2}<tool_call|>": {"n": 1},
    "<|tool_call>call:A{n=1}<tool_call|>": {"n": 1},
    "<|tool_call>call:A{n:,k:}<tool_call|>": {"n": "", "k": ""},
    "<|tool_call>call:A{city:Paris}<tool_call|>": {"city": "Paris"},
    "<|tool_call>call:A{city:New York,country:France}<tool_call|>": {"city": "New York", "country": "France"},
    "<|tool_call>call:A{city:Paris, France,n:1}<tool_call|>": {"city": "Paris, France", "n": 1},
    "<|tool_call>call:A{at:10:30,url:https://a.b/c?d=e}<tool_call|>": {"at": "10:30", "url": "https://a.b/c?d=e"},
    "<|tool_call>call:A{f:g(x) {y},l:[a b, c]}<tool_call|>": {"f": "g(x) {y}", "l": ["a b", "c"]},
    '<|tool_call>call:A{k:<|"|>Paris}<tool_call|>': {"k": "Paris"},
    '<|tool_call>call:A{k:<|"|>7,n:2}<tool_call|>': {"k": "7", "n": 2},
    '<|tool_call>call:A{k:Paris<|"|>,n:2}<tool_call|>': {"k": "Paris", "n": 2},
    '<|tool_call>call:A{k:<|"|>a,b:<|"|>c<|"|>}<tool_call|>': {"k": "a", "b": "c"},
    '<|tool_call>call:A{k:<|"|>a,b:<|"|>c:d<|"|>}<tool_call|>': {"k": "a", "b": "c:d"},
    '<|tool_call>call:A{l:[<|"|>a,<|"|>b<|"|>]}<tool_call|>': {"l": ["a", "b"]},
    '<|tool_call>call:A{k:<|"|>Dear Bob, note: hi': {"k": "Dear Bob, note: hi"},
    '<|tool_call>call:A{k:<|"|>a<|"|>, junk, n:2}<tool_call|>': {"k": "a, junk", "n": 2},
    "<|tool_call>call:A{m:{no pair},n:2}<tool_call|>": {"m": "{no pair}", "n": 2},
    '<|tool_call>call:A{"k": "v", \'l\': [1, 2,]}<tool_call|>': {"k": "v", "l": [1, 2]},
    r'call:A(k="a \"b\" \n\u00e9", p="C:\x")': {"k": 'a "b" \né', "p": r"C:\x"},
    'call:A(k="say "hi" now, Bob", l="")': {"k": 'say "hi" now, Bob', "l": ""},
    'call:A(k="Paris)': {"k": "Paris"},
    "call:A(k=it's, l='it's')": {"k": "it's", "l": "it's"},
}


@pytest.mark.parametrize("reply", GARBLED)
def test_a_garbled_call_is_mended(reply: str) -> None:
    call = only_call(reply)
    assert (call.name, call.repaired) == ("A", True)
    assert typed(call.arguments) == typed(GARBLED[reply])


@pytest.mark.parametrize(
    "reply",
    [
        "<|tool_call>",
        "<|tool_call>call:",
        "<|tool_call>call:{n:1}<tool_call|>",
        '<|tool_call>{"name": "A"}<tool_call|>',
        "<|tool_call>call:...{n:1}<tool_call|>",
        '<|tool_call>call:A("v")<tool_call|>',
        "<|tool_call>call:Pla",
        "You should call:Bob and call: Eve (my friend)",
        "call:f(x) stays, and so does recall:A{n:1}",
    ],
)
def test_what_cannot_be_read_as_a_call_stays_visible(reply: str) -> None:
    parsed = parse_reply(reply)
    assert (parsed.text, parsed.tool_calls) == (reply, ())


def test_several_calls_with_text_around_them() -> None:
    reply = f"One. {render_call('A', {'n': 1})}{render_call('B', {})} Two. call:C(n=3), done<pad><turn|>"
    parsed = parse_reply(reply)
    assert parsed.text == "One.  Two. , done"
    assert [(call.name, call.repaired) for call in parsed.tool_calls] == [("A", False), ("B", False), ("C", True)]


@pytest.mark.parametrize("end", ["}<tool_call|>", "}", "", "<tool_call|>", '<|"|>', ")"])
def test_a_garbled_call_does_not_swallow_the_next(end: str) -> None:
    for start in ("k:v", 'k:<|"|>v', 'k:"v', "l:[v"):
        reply = f'<|tool_call>call:A{{{start}{end} {render_call("B", {"k": "v"})} call:C(n="3")'
        parsed = parse_reply(reply)
        assert [call.name for call in parsed.tool_calls] == ["A", "B", "C"], reply
        assert [call.repaired for call in parsed.tool_calls] == [True, False, True] or end == "}<tool_call|>"


@pytest.mark.parametrize(
    ("reply", "text", "reasoning"),
    [
        ("<|channel>thought\nHm.\n<channel|>Yes.", "Yes.", "Hm."),
        ("<|channel>thought\n<channel|>Yes.", "Yes.", None),
        ("<|channel>thought<channel|>Yes.", "Yes.", None),
        ("<|channel> thought \n \n<channel|>Yes.", "Yes.", None),
        ("<|channel>thought\nOn second thought\nno.<pad><channel|>No.", "No.", "On second thought\nno."),
        ("<|channel>analysis\nHm.<channel|>Yes.", "Yes.", "analysis\nHm."),
        ("<|channel>thought\nA<channel|>b<|channel>thought\nC<channel|>d", "bd", "A\n\nC"),
        ("<|channel>thought\nA<|channel>thought\nB<channel|>c", "c", "A\n\nB"),
        ("<|channel>thought\nHm, call:A{n:1}", "", "Hm, call:A{n:1}"),
        ("<|channel>thought\nHm, <|tool_call>call:A{n:1}<tool_call|><channel|>Yes.", "Yes.",
         "Hm, <|tool_call>call:A{n:1}<tool_call|>"),
        ("Yes.<channel|><tool_call|>", "Yes.", None),
        ("<bos><|turn>Yes.<turn|><eos><pad><pad>", "Yes.", None),
        ("", "", None),
    ],
)  # fmt: skip
def test_thought_and_answer_are_parted(reply: str, text: str, reasoning: str | None) -> None:
    parsed = parse_reply(reply)
    assert (parsed.text, parsed.reasoning, parsed.tool_calls) == (text, reasoning, ())


def test_a_call_ends_an_open_thought() -> None:
    parsed = parse_reply("<|channel>thought\nHm.<|tool_call>call:A{n:1}<tool_call|>Done.")
    assert (parsed.text, parsed.reasoning) == ("Done.", "Hm.")
    assert parsed.tool_calls == (ToolCall(name="A", arguments={"n": 1}),)


pieces = st.sampled_from(
    [*MARKERS, *TURN_MARKERS, *"{}[](),:=\"'\\\n -", "thought\n", "call:", "call:N1{", "call:N2(", "k:", "m=", "7"]
)
mixtures = st.lists(pieces | st.text(max_size=3), max_size=25).map("".join)


@settings(max_examples=400, deadline=None)
@given(reply=mixtures)
def test_any_reply_can_be_taken_apart(reply: str) -> None:
    parsed = parse_reply(reply)
    shown = parsed.text + (parsed.reasoning or "") + json.dumps([[c.name, c.arguments] for c in parsed.tool_calls])
    json.loads(json.dumps([call.arguments for call in parsed.tool_calls], allow_nan=False))
    for name in ("N1", "N2"):
        assert name in shown or name not in reply


@st.composite
def garbled_calls(draw: st.DrawFn) -> str:
    """Calls N0, N1, ... each with its marker, name and one pair; anything else may be missing or wrong."""
    calls = ""
    for number in range(draw(st.integers(1, 4))):
        start = draw(st.sampled_from(["<|tool_call>call:", "<|tool_call>", "\ncall:", " and call:", "<|tool_call>x"]))
        pair = draw(st.sampled_from(['k:<|"|>v w', 'k:<|"|>v<|"|>', "k:v", "k=1,b:", 'k:"v', "k:[v", "k:{n:1", "v"]))
        end = draw(st.sampled_from(["}<tool_call|>", "}", "", ")", "]}\n", "<tool_call|>", "<turn|>"]))
        calls += f"{start}N{number}{draw(st.sampled_from(['{', '(', ' {']))}{pair}{end}"
    return calls


@settings(max_examples=400, deadline=None)
@given(reply=garbled_calls())
def test_no_name_of_a_garbled_call_is_lost(reply: str) -> None:
    parsed = parse_reply(reply)
    called = [call.name.removeprefix("x") for call in parsed.tool_calls]
    for number in range(reply.count("N")):
        assert f"N{number}" in called or f"N{number}" in parsed.text


@pytest.mark.parametrize("piece", ['a:"x,', "\n)", "[{a:", '"', "call:A{", "call:", 'a:<|"|>x,', "<|channel>"])
def test_time_is_linear(piece: str) -> None:
    """Linear time is below a second here, quadratic time at least ten."""
    start_s = time.process_time()
    parse_reply("<|tool_call>call:A{x:{y:" + piece * (150_000 // len(piece)) + "x")
    assert time.process_time() - start_s < 5


def test_a_call_as_text_is_for_people() -> None:
    call = ToolCall(name="PlayMusic", arguments={"artist": "Daft Punk", "year": 2011, "live": None, "l": ["é"]})
    assert str(call) == 'PlayMusic(artist="Daft Punk", year=2011, live=null, l=["é"])'
    assert str(ToolCall(name="Stop", arguments={})) == "Stop()"
