"""Where the values of a JSON text stand in it."""

from __future__ import annotations

import json

_BLANKS = " \t\n\r"
_DECODER = json.JSONDecoder()

Places = dict[tuple[str, ...], tuple[int, int]]


def places_of(text: str) -> Places:
    """Of every value in objects, by its keys: (first character, behind the last).

    A string's are those between its quotes; where there are none, its quotes. What stands in lists is left out. Of a
    text that is cut off, or is no JSON, what was read before that.
    """
    found: Places = {}
    try:
        _read(text, _behind(text, 0), (), found)
    except (ValueError, IndexError, RecursionError):
        # What was read of it is in there.
        return found
    return found


def _read(text: str, start: int, path: tuple[str, ...], found: Places) -> int:
    """Takes down one value and those inside it, and says where it ends."""
    if text[start] != "{":
        _, end = _DECODER.raw_decode(text, start)
        quotes = text[start] == '"' and end - start > 2
        found[path] = (start + quotes, end - quotes)
        return end
    place = _behind(text, start + 1)
    while text[place] != "}":
        if text[place] == ",":
            place = _behind(text, place + 1)
        if text[place] != '"':
            raise ValueError(f"no key at {place}")
        key, place = _DECODER.raw_decode(text, place)
        place = _behind(text, place)
        if text[place] != ":":
            raise ValueError(f"no value at {place}")
        place = _behind(text, _read(text, _behind(text, place + 1), (*path, key), found))
    found[path] = (start, place + 1)
    return place + 1


def _behind(text: str, place: int) -> int:
    """The first character from here on that is no blank."""
    while text[place] in _BLANKS:
        place += 1
    return place
