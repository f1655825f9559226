"""A reply's parts: the answer, the thought channel and the tool calls."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from redraft.core.results import ToolCall
from redraft.text.calls import read_call
from redraft.text.markers import (
    BARE_CALL,
    CALL_CLOSE,
    CALL_OPEN,
    CHANNEL_CLOSE,
    CHANNEL_OPEN,
    TURN_CLOSE,
    TURN_MARKER,
    TURN_OPEN,
)

# How a reply ends: by itself, cut off, or not yet.
End = Literal["whole", "cut", "open"]

_CHANNEL_MARKER = re.compile(r"<\|channel>|<channel\|>")
_THOUGHT_NAME = re.compile(r"\A\s*+thought[ \t]*+(?:\n|\Z)")
_TURN_MARKER = re.compile(TURN_MARKER)
_POINT = re.compile(rf"<\|channel>|<channel\|>|<\|tool_call>|<tool_call\|>|{TURN_MARKER}|{BARE_CALL}")
_BARE_HEAD = re.compile(r"call:\s*+[\w.\-]*+\s*+\Z")
# What `_POINT` finds, as the beginnings of it that a text may end with.
_BEGUN = (CHANNEL_OPEN, CHANNEL_CLOSE, CALL_OPEN, CALL_CLOSE, TURN_OPEN, TURN_CLOSE, "<eos>", "<pad>", "<bos>", "call:")


@dataclass(frozen=True, kw_only=True)
class ParsedReply:
    """A reply taken apart.

    Attributes:
        text: the answer, without thought channel, calls and turn markers; stripped.
        reasoning: the thought channels' text, None when there was none or it was empty.
        tool_calls: calls in the order they were written.
    """

    text: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a reply is to be read.

    Attributes:
        plain: it is its answer as it stands: whoever asked for it said what it is.
        bare_calls: a `call:` without its marker is a call too; not where the protocol was enforced.
        thinking: it begins inside a thought, which the prompt has opened.
    """

    plain: bool = False
    bare_calls: bool = True
    thinking: bool = False

    def parts(self, reply: str, end: End = "whole") -> Parts:
        """Takes a reply apart; see `parse_reply`."""
        if self.plain:
            return Parts(spans=[(0, len(reply))], settled=len(reply))
        return _taken_apart(reply, self, end)

    def parsed(self, reply: str, end: End = "whole") -> ParsedReply:
        """The same, as its reader gets it. A plain reply is not stripped: its blanks are part of it."""
        parts = self.parts(reply, end)
        reasoning = "\n\n".join(thought for thought in parts.thoughts if thought)
        text = parts.shown(reply)
        text = text if self.plain else text.strip()
        return ParsedReply(text=text, reasoning=reasoning or None, tool_calls=tuple(parts.calls))


@dataclass(kw_only=True)
class Parts:
    """What a reply is made of.

    Attributes:
        spans: (start, end) in the reply of each piece of its answer.
        thoughts: texts of the thought channels.
        calls: in the order they were written.
        settled: the position up to which nothing changes whatever follows; of an open reply, the rest is in no part.
    """

    spans: list[tuple[int, int]] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    settled: int = 0

    def shown(self, reply: str) -> str:
        """The answer, not stripped."""
        return "".join(reply[start:end] for start, end in self.spans)

    def place(self, position: int) -> int:
        """Where in the reply a character of the answer stands."""
        for start, end in self.spans:
            if position < end - start:
                return start + position
            position -= end - start
        return self.settled


def parse_reply(reply: str, *, bare_calls: bool = True, thinking: bool = False, end: End = "whole") -> ParsedReply:
    """Takes a reply apart; mends garbled calls, loses no text, and never raises.

    A call inside a closed thought is a thought. A thought that is not closed goes on to the next `<|tool_call>`, the
    next channel or the end. A `<|tool_call>` behind which no call can be read stays in the text as it stands; a bare
    `call:` without a name, a bracket and a pair is prose. Of a reply that was cut off, a call that is not closed is
    left out whole.

    Args:
        reply: the decoded reply with its markers as text, ended before end-of-turn.
        bare_calls, thinking: see `Reading`.
        end: how it ended.

    Returns:
        Its parts. A call that had to be mended has `repaired` set; of a repeated argument the first counts.
    """
    return Reading(bare_calls=bare_calls, thinking=thinking).parsed(reply, end)


def _taken_apart(reply: str, reading: Reading, end: End) -> Parts:
    parts = Parts()
    pos, unread = 0, False
    if reading.thinking:
        thought, pos, closed = _read_thought(reply, 0)
        if end == "open" and not closed:
            return parts
        parts.thoughts.append(thought)
    while point := _POINT.search(reply, pos):
        start, marker = point.start(), point[0]
        parts.spans.append((pos, start))
        pos = point.end()
        if marker == CHANNEL_OPEN:
            thought, pos, closed = _read_thought(reply, pos)
            if end == "open" and not closed:
                parts.settled = start
                return parts
            parts.thoughts.append(thought)
        elif marker == CALL_CLOSE and unread:
            parts.spans.append((start, pos))
            unread = False
        elif marker == "call:" and not reading.bare_calls:
            parts.spans.append((start, pos))
        elif marker in (CALL_OPEN, "call:"):
            if end == "open":
                # What a call is shows when it is whole.
                parts.settled = start
                return parts
            found = read_call(reply, start)
            if end == "cut" and _is_cut(reply, start, marker, closed=None if found is None else found.closed):
                parts.settled = len(reply)
                return parts
            if found is not None:
                parts.calls.append(found.call)
                pos = found.end
            else:
                parts.spans.append((start, pos))
                unread = unread or marker == CALL_OPEN
    rest = len(reply)
    if end == "open":
        # A marker that has only begun.
        rest = max(pos, rest - max(overlap(reply, marker) for marker in _BEGUN))
    parts.spans.append((pos, rest))
    parts.settled = rest
    return parts


def _is_cut(reply: str, start: int, marker: str, *, closed: bool | None) -> bool:
    """Whether a call is all there is from `start` on, and not all of it; `closed` is None where none can be read."""
    if closed is not None:
        return not closed
    if marker == CALL_OPEN:
        return CALL_CLOSE not in reply[start:]
    return _BARE_HEAD.match(reply, start) is not None


def _read_thought(reply: str, start: int) -> tuple[str, int, bool]:
    """(its text, the position behind it, whether nothing that follows can change it)."""
    marker = _CHANNEL_MARKER.search(reply, start)
    end = marker.start() if marker else len(reply)
    if marker and marker[0] == CHANNEL_CLOSE:
        behind = marker.end()
    else:
        call = reply.find(CALL_OPEN, start, end)
        behind = end = call if call >= 0 else end
    thought = _TURN_MARKER.sub("", reply[start:end])
    return _THOUGHT_NAME.sub("", thought).strip(), behind, marker is not None


def overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that begins `word` and is not all of it."""
    return next((n for n in range(min(len(text), len(word) - 1), 0, -1) if text.endswith(word[:n])), 0)
