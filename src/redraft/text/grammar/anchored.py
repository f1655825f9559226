"""Parts of a pattern by which ends of the text they hold on to, so that `^` and `$` can stand in alternatives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from redraft.text.grammar.build import any_of, lengths, sequence
from redraft.text.grammar.nodes import NOTHING, Node, Repeat

_PLAIN = (False, False)


class PatternError(ValueError):
    """A regular expression that cannot be read or enforced; its text begins with what is wrong."""


@dataclass(frozen=True)
class Anchored:
    """What a part of a pattern matches.

    Attributes:
        forms: by (whether the text begins there, whether it ends there); none is what matches nothing.
    """

    forms: dict[tuple[bool, bool], Node]

    @classmethod
    def plain(cls, node: Node) -> Anchored:
        """A part without anchors."""
        return cls({_PLAIN: node})


def alternatives(parts: Iterable[Anchored]) -> Anchored:
    """One of the parts."""
    found: dict[tuple[bool, bool], list[Node]] = {}
    for part in parts:
        for ends, node in part.forms.items():
            found.setdefault(ends, []).append(node)
    return Anchored({ends: any_of(nodes) for ends, nodes in found.items()})


def behind(parts: list[Anchored]) -> Anchored:
    """One part behind the other."""
    done, plain = Anchored.plain(NOTHING), list[Node]()
    for part in parts:
        if part.forms.keys() == {_PLAIN}:
            plain.append(part.forms[_PLAIN])
        else:
            done, plain = _pair(_pair(done, Anchored.plain(sequence(plain))), part), []
    return _pair(done, Anchored.plain(sequence(plain)))


def _pair(one: Anchored, other: Anchored) -> Anchored:
    found = []
    for (starts, ends), first in one.forms.items():
        for (starts_then, ends_then), second in other.forms.items():
            # Before the beginning and behind the end there is nothing.
            if (starts_then and lengths(first)[0]) or (ends and lengths(second)[0]):
                continue
            node = sequence([NOTHING if starts_then else first, NOTHING if ends else second])
            found.append(Anchored({(starts or starts_then, ends or ends_then): node}))
    return alternatives(found)


def repeated(part: Anchored, least: int, most: int | None) -> Anchored:
    """A part so many times."""
    if most == 0:
        return Anchored.plain(NOTHING)
    if (least, most) == (1, 1):
        return part
    if part.forms.keys() <= {_PLAIN}:
        if not part.forms:
            return part if least else Anchored.plain(NOTHING)
        node = part.forms[_PLAIN]
        # What may be empty may be left out instead; and a repeat of nothing is nothing.
        return Anchored.plain(node if node == NOTHING else Repeat(node, least, most))
    if least == 0 and most == 1:
        return alternatives([Anchored.plain(NOTHING), part])
    raise PatternError("^ or $ inside of what is repeated cannot be enforced: put it before or behind")
