"""How much a tree comes to, before anything is made of it."""

from __future__ import annotations

from redraft.text.grammar.nodes import Chars, Choice, Node, Repeat, Sequence, Text

# Characters of a set that is no text yet: digits, and those of hexadecimal numbers.
_NARROW = 16


def holds_text(node: Node) -> bool:
    """Whether a tree has characters of many kinds somewhere."""
    match node:
        case Chars():
            return sum(last - first + 1 for first, last in node.ranges) > _NARROW
        case Sequence() | Choice():
            return any(map(holds_text, node.parts))
        case Repeat():
            return holds_text(node.part)
        case _:
            return not isinstance(node, Text)


def size(node: Node, enough: int) -> int:
    """Symbols that a tree takes at least, counted until there are more than `enough`."""
    if isinstance(node, Text):
        return len(node.text)
    if isinstance(node, Chars):
        return 1 if node.ranges and node.ranges[-1][1] < 0x80 else 8
    if isinstance(node, Repeat):
        times = max(1, node.least, node.most or 0)
        return times * size(node.part, enough)
    if isinstance(node, Sequence | Choice):
        total = 0
        for part in node.parts:
            total += size(part, enough)
            if total > enough:
                break
        return total
    return enough + 1
