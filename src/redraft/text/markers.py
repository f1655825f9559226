"""The protocol's markers: turns, thoughts, calls and their strings. Source: the published `chat_template.jinja`."""

from __future__ import annotations

import re

TURN_OPEN, TURN_CLOSE = "<|turn>", "<turn|>"
CHANNEL_OPEN, CHANNEL_CLOSE = "<|channel>", "<channel|>"
CALL_OPEN, CALL_CLOSE, QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
RESPONSE_OPEN, RESPONSE_CLOSE = "<|tool_response>", "<tool_response|>"

# As patterns. Every quantifier is possessive: a failed match must not try again with less.
TURN_MARKER = r"<turn\|>|<\|turn>|<eos>|<pad>|<bos>"
BARE_CALL = r"(?<![\w.\-])call:"
A_NAME = r"(?=[.\-]*+\w)[\w.\-]++"

NAME = re.compile(A_NAME)
