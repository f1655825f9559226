"""Trees of texts, read straight from their meaning: whether a text is one of theirs, and random texts of theirs."""

from __future__ import annotations

import random

from redraft.text.grammar.nodes import (
    AnyOrder,
    Both,
    Chars,
    Choice,
    Distinct,
    Node,
    Repeat,
    Sequence,
    Text,
    Without,
)

_NONE: frozenset[int] = frozenset()


def matches(node: Node, text: str) -> bool:
    """Whether a tree holds a text."""
    return len(text) in _Reader(text).ends(node, 0)


class _Reader:
    """One text, and where each part of a tree ends in it that begins at some place."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.known: dict[tuple[int, int], frozenset[int]] = {}

    def ends(self, node: Node, start: int) -> frozenset[int]:
        """Every place where a text of the tree ends that begins here."""
        key = id(node), start
        if key not in self.known:
            self.known[key] = self._ends(node, start)
        return self.known[key]

    def _through(self, node: Node, starts: frozenset[int]) -> frozenset[int]:
        return frozenset().union(*(self.ends(node, start) for start in starts))

    def _ends(self, node: Node, start: int) -> frozenset[int]:
        match node:
            case Text():
                return frozenset({start + len(node.text)}) if self.text.startswith(node.text, start) else _NONE
            case Chars():
                inside = start < len(self.text) and any(a <= ord(self.text[start]) <= b for a, b in node.ranges)
                return frozenset({start + 1}) if inside else _NONE
            case Sequence():
                places = frozenset({start})
                for part in node.parts:
                    places = self._through(part, places)
                return places
            case Choice():
                return frozenset().union(*(self.ends(part, start) for part in node.parts))
            case Repeat():
                return self._repeat(node, start)
            case AnyOrder():
                return self._any_order(node, start)
            case Distinct():
                return self._distinct(node, start)
            case Both():
                return self.ends(node.one, start) & self.ends(node.other, start)
            case Without():
                found = self.ends(node.part, start)
                return frozenset(e for e in found if not any(word in self.text[start:e] for word in node.words))

    def _repeat(self, node: Repeat, start: int) -> frozenset[int]:
        reached: dict[int, frozenset[int]] = {0: frozenset({start})}
        found = frozenset({start}) if node.least == 0 else _NONE
        seen: set[frozenset[int]] = set()
        for times in range(1, (10**9 if node.most is None else node.most) + 1):
            before = reached[times - 1]
            if times > 1 and node.separator is not None:
                before = self._through(node.separator, before)
            after = self._through(node.part, before)
            if not after or (times > node.least and after <= found and after in seen):
                break
            seen.add(after)
            reached = {times: after}
            if times >= node.least:
                found |= after
        return found

    def _any_order(self, node: AnyOrder, start: int) -> frozenset[int]:
        known: dict[tuple[int, frozenset[int]], frozenset[int]] = {}

        def behind(place: int, used: frozenset[int]) -> frozenset[int]:
            if (place, used) not in known:
                found = frozenset({place}) if node.required <= used else _NONE
                places = self.ends(node.separator, place) if used else frozenset({place})
                for number, (key, value) in enumerate(node.fields):
                    if number not in used:
                        for end in self._through(value, self._through(key, places)):
                            found |= behind(end, used | {number})
                known[place, used] = found
            return known[place, used]

        return behind(start, _NONE)

    def _distinct(self, node: Distinct, start: int) -> frozenset[int]:
        found: set[int] = {start} if node.least == 0 else set()

        def behind(place: int, texts: tuple[str, ...]) -> None:
            places = frozenset({place})
            if texts and node.separator is not None:
                places = self.ends(node.separator, place)
            for begin in places:
                for end in self.ends(node.part, begin):
                    text = self.text[begin:end]
                    if text not in texts and (node.most is None or len(texts) < node.most):
                        if len(texts) + 1 >= node.least:
                            found.add(end)
                        behind(end, (*texts, text))

        behind(start, ())
        return frozenset(found)


class NoText(Exception):
    """Tries have found no text."""


def some_texts(node: Node, rng: random.Random, n: int) -> list[str]:
    """Random texts of a tree; fewer where intersections are hit too seldom."""
    found = []
    for _ in range(n):
        try:
            found.append(_Speller(rng).text(node))
        except NoText:
            continue
    return found


class _Speller:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def text(self, node: Node) -> str:
        match node:
            case Text():
                return node.text
            case Chars():
                first, last = self.rng.choice(node.ranges)
                # Ends of ranges are where mistakes are.
                return chr(self.rng.choice([first, last, self.rng.randint(first, last)]))
            case Sequence():
                return "".join(self.text(part) for part in node.parts)
            case Choice():
                parts = list(node.parts)
                self.rng.shuffle(parts)
                for part in parts:
                    try:
                        return self.text(part)
                    except NoText:
                        continue
                raise NoText
            case Repeat():
                separator = node.separator
                texts = [self.text(node.part) for _ in range(self._times(node.least, node.most))]
                return "".join((self.text(separator) if i and separator else "") + text for i, text in enumerate(texts))
            case AnyOrder():
                return self._any_order(node)
            case Distinct():
                return self._distinct(node)
            case Both():
                for _ in range(60):
                    first, second = (node.one, node.other) if self.rng.random() < 0.6 else (node.other, node.one)
                    text = self.text(first)
                    if matches(second, text):
                        return text
                raise NoText
            case Without():
                for _ in range(100):
                    text = self.text(node.part)
                    if not any(word in text for word in node.words):
                        return text
                raise NoText

    def _times(self, least: int, most: int | None) -> int:
        spread = self.rng.choice([0, 1, 1, 2, 3, 5])
        return least + spread if most is None else self.rng.choice([least, min(most, least + spread), min(most, 3000)])

    def _any_order(self, node: AnyOrder) -> str:
        others = [n for n in range(len(node.fields)) if n not in node.required and self.rng.random() < 0.5]
        order = [*node.required, *others]
        self.rng.shuffle(order)
        texts = [self.text(node.fields[n][0]) + self.text(node.fields[n][1]) for n in order]
        return "".join((self.text(node.separator) if i else "") + text for i, text in enumerate(texts))

    def _distinct(self, node: Distinct) -> str:
        texts: list[str] = []
        for _ in range(40):
            if len(texts) >= node.least + self.rng.choice([0, 1, 2, 3]) or len(texts) == node.most:
                break
            text = self.text(node.part)
            if text not in texts:
                texts.append(text)
        if len(texts) < node.least:
            raise NoText
        separator = node.separator
        return "".join((self.text(separator) if i and separator else "") + text for i, text in enumerate(texts))
