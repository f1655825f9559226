"""Trees of parts: the shortest form of a sequence or choice, how long texts are, and texts of bounded length."""

from __future__ import annotations

from collections.abc import Iterable

from redraft.text.grammar.nodes import (
    NOTHING,
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
from redraft.text.grammar.sets import ALL

ANY = Chars(ALL)


def sequence(parts: Iterable[Node]) -> Node:
    """Parts one behind the other; texts beside each other are one."""
    flat: list[Node] = []
    for part in parts:
        for inner in part.parts if isinstance(part, Sequence) else (part,):
            last = flat[-1] if flat else None
            if isinstance(inner, Text) and isinstance(last, Text):
                flat[-1] = Text(last.text + inner.text)
            elif inner != NOTHING and not (isinstance(inner, Text) and not inner.text):
                flat.append(inner)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def any_of(parts: Iterable[Node]) -> Node:
    """One of the parts, each named once."""
    found: dict[object, Node] = {}
    for part in parts:
        for inner in part.parts if isinstance(part, Choice) else (part,):
            # Large trees are compared by identity alone.
            found.setdefault(inner if isinstance(inner, Text | Chars) else id(inner), inner)
    kept = tuple(found.values())
    return kept[0] if len(kept) == 1 else Choice(kept)


def optional(part: Node) -> Node:
    """A part or nothing."""
    return any_of([NOTHING, part])


def lengths(node: Node) -> tuple[int, int | None]:
    """(shortest, longest) in characters; None is without end. What a rule leaves may be less."""
    match node:
        case Text():
            return len(node.text), len(node.text)
        case Chars():
            return 1, 1
        case Sequence():
            return _sum([lengths(part) for part in node.parts])
        case Choice():
            return _hull([lengths(part) for part in node.parts])
        case Repeat() | Distinct():
            low, high = lengths(node.part)
            apart = lengths(node.separator) if node.separator else (0, 0)
            least = node.least * low + max(0, node.least - 1) * apart[0]
            if high == 0 and apart[1] == 0:
                return least, 0
            if node.most is None or high is None or apart[1] is None:
                return least, 0 if node.most == 0 else None
            return least, node.most * high + max(0, node.most - 1) * apart[1]
        case AnyOrder():
            low, high = _sum([lengths(part) for field in node.fields for part in (*field, node.separator)])
            return 0 if not node.required else low, high
        case Both():
            one, other = lengths(node.one), lengths(node.other)
            highs = [high for high in (one[1], other[1]) if high is not None]
            return max(one[0], other[0]), min(highs, default=None)
        case Without():
            return lengths(node.part)


def _sum(parts: list[tuple[int, int | None]]) -> tuple[int, int | None]:
    highs = [high for _, high in parts]
    return sum(low for low, _ in parts), None if None in highs else sum(high or 0 for high in highs)


def _hull(parts: list[tuple[int, int | None]]) -> tuple[int, int | None]:
    highs = [high for _, high in parts]
    return min(low for low, _ in parts), None if None in highs else max(high or 0 for high in highs)


def limited(node: Node, least: int, most: int | None) -> Node | None:
    """The texts of a tree with so many characters, without counting all of them where that can be.

    Returns:
        The tree, or None where there is no such text.
    """
    low, high = lengths(node)
    least, most = max(least, 0), most if most is None or high is None else min(most, high)
    if (most is not None and most < low) or (high is not None and high < least):
        return None
    if least <= low and (most is None or (high is not None and high <= most)):
        return node
    if isinstance(node, Choice):
        kept = [part for part in (limited(part, least, most) for part in node.parts) if part is not None]
        return any_of(kept) if kept else None
    if isinstance(node, Repeat) and node.separator is None:
        each, longest = lengths(node.part)
        if each == longest and each:
            fewest = max(node.least, -(-least // each))
            ends = [end for end in (node.most, None if most is None else most // each) if end is not None]
            if ends and fewest > min(ends):
                return None
            return Repeat(node.part, fewest, min(ends, default=None))
    if isinstance(node, Sequence):
        spans = [lengths(part) for part in node.parts]
        loose = [i for i, (short, long) in enumerate(spans) if short != long]
        if len(loose) == 1:
            fixed = low - spans[loose[0]][0]
            inner = limited(node.parts[loose[0]], least - fixed, None if most is None else most - fixed)
            if inner is None:
                return None
            return sequence([*node.parts[: loose[0]], inner, *node.parts[loose[0] + 1 :]])
    return Both(node, Repeat(ANY, least, most))


def size(node: Node, known: dict[int, int] | None = None) -> int:
    """How many parts and characters a tree has, each as often as it stands there."""
    known = {} if known is None else known
    if id(node) not in known:
        match node:
            case Text():
                own = len(node.text)
            case Chars():
                own = len(node.ranges)
            case Sequence() | Choice():
                own = sum(size(part, known) for part in node.parts)
            case Repeat() | Distinct():
                own = size(node.part, known) + (size(node.separator, known) if node.separator else 0)
            case AnyOrder():
                own = sum(size(part, known) for field in node.fields for part in field)
            case Both():
                own = size(node.one, known) + size(node.other, known)
            case Without():
                own = size(node.part, known)
        known[id(node)] = own + 1
    return known[id(node)]
