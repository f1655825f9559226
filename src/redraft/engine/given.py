"""What a caller gives beside options: prompts, texts, spans, batches. Told apart here, so that nothing deeper fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Rows
from numbers import Number
from typing import Any, Literal

from redraft.core.checks import integer, shown
from redraft.core.engine import Request
from redraft.core.errors import PromptError

_PROMPT = "the prompt must be text, messages (a list of mappings) or token ids (a list of integers)"


def kind_of(prompt: object) -> Literal["text", "messages", "ids"]:
    """What a prompt is.

    Raises:
        PromptError: it is none, or empty.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise PromptError("the prompt is empty")
        return "text"
    if isinstance(prompt, Mapping):
        raise PromptError(f"{_PROMPT}, got one mapping; one message is a list of it: [{shown(prompt)}]")
    if isinstance(prompt, bytes | bytearray):
        raise PromptError(f"{_PROMPT}, got bytes: decode them first")
    if hasattr(prompt, "tolist") and hasattr(prompt, "shape"):
        raise PromptError(f"{_PROMPT}, got a {type(prompt).__name__}: give its tolist()")
    if not isinstance(prompt, Rows):
        raise PromptError(f"{_PROMPT}, got {shown(prompt)}")
    if not prompt:
        raise PromptError("the prompt is empty: give text, messages or token ids")
    return "ids" if isinstance(prompt[0], Number) else "messages"


def checked_ids(ids: Iterable[Any], vocab_size: int) -> list[int]:
    """Token ids of a vocabulary.

    Raises:
        PromptError: one that it has not.
    """
    found = []
    for position, token_id in enumerate(ids):
        number = integer(token_id)
        if number is None or not 0 <= number < vocab_size:
            raise PromptError(f"token id {shown(token_id)} at position {position} is not in 0..{vocab_size - 1}")
        found.append(number)
    return found


def check_text(name: str, value: object) -> None:
    """Makes sure that what should be text is.

    Raises:
        PromptError: it is something else.
    """
    if not isinstance(value, str):
        raise PromptError(f"{name} must be a string, got {shown(value)}")


def checked_span(text: str, span: object) -> tuple[int, int]:
    """The characters (start, end) of a text that a span names.

    Raises:
        PromptError: it names none; where it is a part of the text itself, this says where that stands.
    """
    wanted = "span must be (start, end), two positions of characters"
    if isinstance(span, str):
        start = text.find(span)
        where = "which the text does not contain"
        if span and start >= 0:
            often = "first " if text.find(span, start + 1) >= 0 else ""
            where = f"which stands {often}at {(start, start + len(span))}"
        raise PromptError(f"{wanted}, got the text {shown(span)}, {where}")
    pair = [integer(place) for place in span] if isinstance(span, Rows) and not isinstance(span, bytes) else []
    start, end = pair if len(pair) == 2 else (None, None)
    if start is None or end is None:
        raise PromptError(f"{wanted}, got {shown(span)}")
    told = f"span {(start, end)}"
    if start == end:
        raise PromptError(f"{told} is empty: it must hold the characters that are to be written anew")
    if start > end:
        raise PromptError(f"{told} ends before it begins")
    if not 0 <= start < end <= len(text):
        raise PromptError(f"{told} is no part of a text of {len(text)} characters")
    return start, end


def requests_of(requests: object) -> list[Request]:
    """The requests of a batch.

    Raises:
        PromptError: no list.
    """
    if isinstance(requests, str | bytes | bytearray | Mapping | Request) or not isinstance(requests, Iterable):
        raise PromptError(f"a batch must be a list of requests or prompts, got {shown(requests)}: put it into a list")
    return [request if isinstance(request, Request) else Request(prompt=request) for request in requests]
