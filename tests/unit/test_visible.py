"""A stream's text is the whole reply's, whatever is in it and however it is cut; stop strings act on what is shown."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redraft.engine.reply import Reply
from redraft.text.output import Reading, parse_reply
from redraft.text.visible import Visible

PARTS = [
    "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>', "<turn|>", "<|turn>", "<eos>", "<pad>",
    "<bos>", "call:", "call:f{a:1}", "<|tool_call>call:f{a:<|\"|>x<|\"|>}<tool_call|>", "thought\n",
    "<|channel>thought\nhm<channel|>",
    " ", "\n", "a", "Nina", "ca", "<|", "{", "}", "é", "\u2028", "music",
]  # fmt: skip
replies = st.lists(st.sampled_from(PARTS) | st.text(max_size=2), max_size=9)
readings = st.builds(Reading, plain=st.booleans(), bare_calls=st.booleans(), thinking=st.booleans())


@settings(max_examples=400, deadline=None)
@given(pieces=replies, reading=readings, end=st.sampled_from(["whole", "cut"]))
@example(pieces=["<tool_call|>", "<turn|>", "b c"], reading=Reading(), end="whole")
@example(pieces=["Hello", "<pad>", " world"], reading=Reading(), end="whole")
@example(pieces=["The tool says 21.\n", "<channel|>", "It is 21."], reading=Reading(thinking=True), end="whole")
def test_what_is_released_is_a_beginning_of_the_whole_answer(pieces, reading, end):
    visible = Visible(plain=reading.plain, bare_calls=reading.bare_calls, thinking=reading.thinking)
    shown = "".join(visible.add(piece) for piece in pieces)
    whole = reading.parsed("".join(pieces), end).text
    assert whole.startswith(shown)
    assert shown + visible.rest(whole) == whole


class Pieces:
    """A tokenizer whose tokens are texts: id i is the i-th."""

    def __init__(self, texts):
        self.texts = texts

    def decode(self, token_ids, skip_special_tokens=False):
        return "".join(self.texts[i] for i in token_ids)


@settings(max_examples=400, deadline=None)
@given(
    pieces=replies,
    reading=readings,
    stop=st.lists(st.sampled_from(["Nina", "a", "call", "\n", "<", "xa"]), max_size=2),
    budget=st.integers(1, 12),
    size=st.integers(1, 4),
)
def test_a_streams_text_is_the_replys_over_stops_budgets_and_canvases(pieces, reading, stop, budget, size):
    reply = Reply(Pieces(pieces), [10**6], budget, stop, reading)  # type: ignore[arg-type]
    ids = [*range(len(pieces)), 10**6]
    raw = shown = ""
    for first in range(0, len(ids), size):
        if reply.finish is None:
            added = reply.add(ids[first : first + size])
            raw, shown = raw + added.text, shown + added.shown
    answer = reading.parsed(reply.text, reply.end).text
    assert raw == reply.text
    assert answer.startswith(shown)
    assert not any(text in answer for text in stop), "no stop string is shown"


@pytest.mark.parametrize(
    ("text", "stop", "shown", "calls"),
    [
        ('<|tool_call>call:P{a:<|"|>Nina Simone<|"|>}<tool_call|>', "Nina", "", 1),
        ("<|tool_call>call:P{}<tool_call|>", "P", "", 1),
        ("<|channel>thought\nNina sings<channel|>I play Nina now", "Nina", "I play", 0),
        ("<|channel>thought\nNina<channel|>Playing.", "Nina", "Playing.", 0),
        ("Playing Nina. <|tool_call>call:P{}<tool_call|>", "Nina", "Playing", 0),
        ("Ni<pad>na plays", "Nina", "", 0),
    ],
)
def test_stop_strings_leave_calls_and_thoughts_alone(text, stop, shown, calls):
    reply = Reply(Pieces([text]), [1], 9, [stop])  # type: ignore[arg-type]
    reply.add([0, 1])
    parsed = reply.reading.parsed(reply.text, reply.end)
    assert (parsed.text, len(parsed.tool_calls)) == (shown, calls)
    assert reply.finish == "stop"


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ("Well. <|tool_call>call:Play{genre:<|\"|>ja", "Well.", 0),
        ("<|tool_call>", "", 0),
        ("<|tool_call>call:Pl", "", 0),
        ("<|tool_call>call:A{}<tool_call|><|tool_call>call:B{x:1}", "", 1),
        ("I call:PlayMusic{genre: only", "I", 0),
        ("I call:Play", "I", 0),
        ("call:f(a=1)", "", 1),
        ("call: Bob (my friend) when", "call: Bob (my friend) when", 0),
        ("I like music", "I like music", 0),
    ],
)  # fmt: skip
def test_a_call_that_was_cut_off_is_none_and_shows_no_syntax(text, shown, calls):
    parsed = parse_reply(text, end="cut")
    assert (parsed.text, len(parsed.tool_calls)) == (shown, calls)


def test_the_same_where_the_model_ended_its_turn_is_mended():
    [call] = parse_reply('<|tool_call>call:Play{genre:<|"|>jazz').tool_calls
    assert (call.arguments, call.repaired) == ({"genre": "jazz"}, True)


def test_a_reply_that_begins_inside_a_thought():
    parsed = parse_reply("The tool says 21.\n<channel|>It is 21.", thinking=True)
    assert (parsed.reasoning, parsed.text) == ("The tool says 21.", "It is 21.")
    cut = parse_reply("The tool says", thinking=True, end="cut")
    assert (cut.reasoning, cut.text) == ("The tool says", "")
