"""Reads the arguments of one tool call, and mends what a model got wrong in them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from redraft.text.markers import A_NAME, BARE_CALL, QUOTE, TURN_MARKER

MAX_DEPTH = 64

_STOP = rf"<\|?tool_(?:call|response)\|?>|<\|channel>|<channel\|>|{TURN_MARKER}|{BARE_CALL}\s*+{A_NAME}(?:\s*+\{{|\()"
_OPENS_AT = {"}": "{", ")": "(", "]": "["}

_NEXT_STOP = re.compile(_STOP)
_END = re.compile(rf"[\s}})\]]*+(?P<stop>{_STOP}|\Z)")
_POINT = re.compile(rf"(?P<separator>[,\n][\s,]*+)|(?P<bracket>[{{}}()\[\]])|{_STOP}")
_QUOTE_POINT = {quote: re.compile(rf"\\[\\\"']|{quote}|{_STOP}") for quote in "\"'"}
_SPACE, _SEPARATORS, _CLOSERS = re.compile(r"\s*+"), re.compile(r"[\s,]*+"), re.compile(r"[\s})\]]*+")
_BARE_KEY = re.compile(rf"(?P<key>{A_NAME})\s*+(?P<sign>[:=])")
_ORDINARY_KEY = re.compile(r"""(?P<quote>["'])(?P<key>[^"'\n]*+)(?P=quote)\s*+(?P<sign>[:=])""")
_SIGN = re.compile(r"\s*+(?P<sign>[:=])")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?P<fraction>(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)")
_LITERALS = {"true": True, "false": False, "null": None}
_PYTHON_LITERALS = {"True": True, "False": False, "None": None}


class Reader:
    """Recursive descent over the arguments. `closers` are the brackets still to be closed, the innermost last.

    Attributes:
        repaired: whether anything had to be mended.
        closed: whether the outermost bracket has met its own closing one.
    """

    def __init__(self, text: str, pos: int) -> None:
        self.text = text
        self.pos = pos
        self.repaired = False
        self.closed = False
        self._scanned: dict[str, tuple[int, int, bool]] = {}
        self._no_end = (0, 0)

    def mapping(self, closers: str) -> dict[str, Any] | None:
        """The pairs up to the closing bracket; None, without having moved far, when the first item is no pair."""
        values: dict[str, Any] = {}
        commas = self._separators()
        while not self._closed(closers, commas, first=not values):
            found = self._key(self.pos)
            if found is None:
                assert not values, "an item ends only before a key or an end"
                return None
            key, self.pos, exact = found
            value = self._value(closers, in_list=False)
            if not exact or key in values:
                self.repaired = True
            values.setdefault(key, value)
            commas = self._separators()
        return values

    def _list(self, closers: str) -> list[Any]:
        values: list[Any] = []
        commas = self._separators()
        while not self._closed(closers, commas, first=not values):
            values.append(self._value(closers, in_list=True))
            commas = self._separators()
        return values

    def _separators(self) -> int:
        end = self._skip(_SEPARATORS, self.pos)
        commas = self.text.count(",", self.pos, end)
        self.pos = end
        return commas

    def _closed(self, closers: str, commas: int, *, first: bool) -> bool:
        """Whether the innermost bracket closes here, which it also does before an outer one and before a stop."""
        if self._at(self.pos, closers[-1]):
            self.pos += 1
            closed = True
            self.closed = len(closers) == 1
        elif self._at(self.pos, closers):
            self.repaired = closed = True
        elif end := self._end(self.pos):
            self.pos = end.start("stop")
            self.repaired = closed = True
        else:
            closed = False
        if commas != (0 if first or closed else 1):
            self.repaired = True
        return closed

    def _value(self, closers: str, *, in_list: bool) -> Any:
        start = self.pos = self._skip(_SPACE, self.pos)
        first = self.text[start : start + 1]
        nested: Any = None
        if self.text.startswith(QUOTE, start):
            nested = self._string(closers, in_list)
        elif first in ('"', "'"):
            nested = self._ordinary_string(closers, in_list)
        elif first in ("[", "{") and len(closers) < MAX_DEPTH:
            self.pos += 1
            nested = self._list(closers + "]") if first == "[" else self.mapping(closers + "}")
        if nested is None:
            self.pos = start
            return self._scalar(self._bare(closers, in_list))
        behind = self._skip(_SEPARATORS, self.pos)
        parted = in_list and "," in self.text[self.pos : behind]
        if parted or self._item_ends(behind, closers, in_list):
            return nested
        self._bare(closers, in_list)
        return self._cleaned(start)

    def _string(self, closers: str, in_list: bool) -> str:
        """A string between `<|"|>`.

        In a well-formed call the next delimiter closes it and the item ends there. Otherwise that delimiter opens
        another string, and this one is read as if it were bare, but whole when the text was cut off within it.
        """
        begin = self.pos + len(QUOTE)
        end = self.text.find(QUOTE, begin)
        if end >= 0 and self._closes_string(end, end + len(QUOTE)):
            self.pos = end + len(QUOTE)
            return self.text[begin:end]
        self.repaired = True
        limit = end if end >= 0 else len(self.text)
        stop = _NEXT_STOP.search(self.text, begin, limit)
        if stop or end < 0:
            rest = self.text[begin : stop.start() if stop else limit]
            if not rest.rstrip().endswith(tuple(_OPENS_AT)):
                self.pos = begin + len(rest)
                return rest.strip()
        self.pos = begin
        return self._bare(closers, in_list)

    def _ordinary_string(self, closers: str, in_list: bool) -> str:
        """A string between ordinary quotes; it may hold quotes that no end of an item follows."""
        self.repaired = True
        quote, begin = self.text[self.pos], self.pos + 1
        since, end, closes = self._scanned.get(quote, (0, -1, False))
        # Whether a quote closes a string depends on its place alone: an earlier search holds for this one too.
        if not since <= begin <= end:
            end, closes = len(self.text), False
            for point in _QUOTE_POINT[quote].finditer(self.text, begin):
                closes = point[0] == quote and self._closes_string(point.start(), point.end())
                if closes or point[0][0] not in (quote, "\\"):
                    end = point.start()
                    break
            self._scanned[quote] = begin, end, closes
        if closes:
            self.pos = end + 1
            return _unescaped(self.text[begin:end])
        self.pos = begin if quote == '"' else self.pos
        return self._bare(closers, in_list)

    def _closes_string(self, start: int, end: int) -> bool:
        behind = self._skip(_SPACE, end)
        if self._at(behind, ",})]") or self._end(behind):
            return True
        return self._key(behind) is not None and self.text[start - 1] not in ":="

    def _bare(self, closers: str, in_list: bool) -> str:
        start, self.pos = self.pos, self._bare_end(closers, in_list)
        return self._cleaned(start)

    def _cleaned(self, start: int) -> str:
        raw = self.text[start : self.pos]
        self.repaired = self.repaired or QUOTE in raw
        return raw.replace(QUOTE, "").strip()

    def _bare_end(self, closers: str, in_list: bool) -> int:
        """Where unquoted text ends: at a separator, a bracket that it did not open itself, or a stop."""
        opened = dict.fromkeys(closers, 0)
        end = len(self.text)
        for point in _POINT.finditer(self.text, self.pos):
            found = point[0]
            if point["separator"]:
                if any(opened.values()):
                    continue
                if (in_list and "," in found) or self._item_ends(point.end(), closers, in_list):
                    return point.start()
            elif not point["bracket"]:
                end = point.start()
                break
            elif found in opened:
                if not opened[found]:
                    return point.start()
                opened[found] -= 1
            else:
                for closer in opened:
                    opened[closer] += _OPENS_AT[closer] == found
        # The wrong bracket just before a stop closes the call: `call:NAME(n=1}`.
        span = self.text[self.pos : end].rstrip()
        if span and _OPENS_AT.get(span[-1], span) not in span:
            return self.pos + len(span) - 1
        return end

    def _item_ends(self, pos: int, closers: str, in_list: bool) -> bool:
        if self._at(pos, closers) or self._end(pos):
            return True
        return not in_list and self._key(pos) is not None

    def _end(self, pos: int) -> re.Match[str] | None:
        """A stop at `pos`, perhaps behind brackets that nothing opened; a run that leads to none is run once."""
        if self._no_end[0] <= pos < self._no_end[1]:
            return None
        found = _END.match(self.text, pos)
        if found is None:
            self._no_end = pos, self._skip(_CLOSERS, pos)
        return found

    def _key(self, pos: int) -> tuple[str, int, bool] | None:
        """The key at `pos`, the position behind its sign, and whether it is written as the grammar has it."""
        if self.text.startswith(QUOTE, pos):
            begin = pos + len(QUOTE)
            end = self.text.find(QUOTE, begin)
            sign = _SIGN.match(self.text, end + len(QUOTE)) if end >= 0 else None
            return (self.text[begin:end], sign.end(), sign["sign"] == ":") if sign else None
        if found := _BARE_KEY.match(self.text, pos):
            return found["key"], found.end(), found["sign"] == ":"
        if found := _ORDINARY_KEY.match(self.text, pos):
            return found["key"], found.end(), False
        return None

    def _scalar(self, raw: str) -> Any:
        if raw in _LITERALS:
            return _LITERALS[raw]
        if number := _NUMBER.fullmatch(raw):
            try:
                value = float(raw) if number["fraction"] else int(raw)
            except ValueError:
                # int() refuses thousands of digits; they stay text.
                value = math.inf
            if abs(value) != math.inf:
                return value
        self.repaired = True
        return _PYTHON_LITERALS.get(raw, raw)

    def _skip(self, pattern: re.Pattern[str], pos: int) -> int:
        found = pattern.match(self.text, pos)
        return found.end() if found else pos

    def _at(self, pos: int, characters: str) -> bool:
        return pos < len(self.text) and self.text[pos] in characters


def _unescaped(raw: str) -> str:
    if "\\" not in raw:
        return raw
    try:
        value = json.loads('"' + raw.replace("\\'", "'") + '"', strict=False)
        value.encode()
    except ValueError:
        return raw
    return value
