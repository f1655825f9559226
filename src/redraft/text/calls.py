"""The call grammar: reads one tool call and mends what a model got wrong.

```
call    = "<|tool_call>" "call:" name mapping "<tool_call|>"
mapping = "{" [key ":" value {"," key ":" value}] "}"
list    = "[" [value {"," value}] "]"
value   = '<|"|>' text '<|"|>' | mapping | list | number | "true" | "false" | "null"
```

A well-formed call always reads as it was written. In any other, a comma or a line break parts two pairs only where
a key follows it, and what cannot be read behind a value joins that value as text: nothing is dropped. The reader
only moves forward and looks no further ahead than the next token of its kind, so its time is linear.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from redraft.core.results import ToolCall
from redraft.text.call_reader import Reader
from redraft.text.markers import A_NAME

_MARKED_HEAD = re.compile(
    rf"<\|tool_call>\s*+(?P<prefix>call\s*+:\s*+)?+(?P<name>{A_NAME})\s*+(?P<bracket>[{{(]|(?=<tool_call\|>))"
)
# Prose such as "call: Bob (my friend)" is no call, so a parenthesis must follow the name at once.
_BARE_HEAD = re.compile(rf"(?P<prefix>call:\s*+)(?P<name>{A_NAME})(?P<bracket>\s*+\{{|\()")
_TAIL = re.compile(r"(?P<extra>[\s})\]]*+)<tool_call\|>")


class FoundCall(NamedTuple):
    """A call in a text: `end` is the position behind it, `closed` whether nothing of it can be missing there."""

    call: ToolCall
    end: int
    closed: bool


def read_call(text: str, start: int) -> FoundCall | None:
    """Reads the call that opens at `start`, with its opening marker or as a bare `call:`.

    Args:
        text: the reply.
        start: where the marker or `call:` stands.

    Returns:
        The call; None when there is no readable name, no opening bracket, or something else than a pair behind the
        bracket.
    """
    marked = _MARKED_HEAD.match(text, start)
    head = marked or _BARE_HEAD.match(text, start)
    if head is None or not (head["prefix"] or head["bracket"]):
        return None
    reader = Reader(text, head.end())
    bracket = head["bracket"].strip()
    arguments = reader.mapping(")" if bracket == "(" else "}") if bracket else {}
    if arguments is None:
        return None
    tail = _TAIL.match(text, reader.pos)
    well_formed = marked and head["prefix"] and bracket == "{" and tail and not tail["extra"].strip()
    call = ToolCall(name=head["name"], arguments=arguments, repaired=reader.repaired or not well_formed)
    closed = bool(tail) or (marked is None and reader.closed)
    return FoundCall(call, tail.end() if tail else reader.pos, closed)
