r"""Look-ahead at the beginning of a pattern, as what its texts must be besides.

`^(?=.*\d)...` is an intersection. A negative one has no tree of its own but in three cases: a text or a row of
classes that must not stand first, one that must not stand anywhere (`(?!.*--)`), and a class of which the whole text
must not consist (`(?!^[-+.]*$)`).
"""

from __future__ import annotations

from redraft.text.grammar.anchored import Anchored, PatternError
from redraft.text.grammar.build import ANY, any_of, lengths, optional, sequence
from redraft.text.grammar.nodes import NOTHING, Both, Chars, Node, Repeat, Sequence, Text, Without
from redraft.text.grammar.sets import Ranges, complement, difference, of

_AROUND = Repeat(ANY)
_ADVICE = "cannot be enforced: write out the texts that are meant, as alternatives"


def ahead(texts: Node, look: Anchored, *, negative: bool) -> Node:
    """The texts for which a look-ahead at their beginning holds.

    Raises:
        PatternError: a negative one without a tree.
    """
    if not negative:
        seen = [sequence([node, NOTHING if ends else _AROUND]) for (_, ends), node in look.forms.items()]
        return Both(texts, any_of(seen)) if seen else Both(texts, Chars(()))
    for (_, ends), node in look.forms.items():
        texts = _without(texts, node, ends)
    return texts


def _without(texts: Node, node: Node, ends: bool) -> Node:
    row, only = _row(node), _any_number(node)
    if ends and only is not None:
        other = sequence([_AROUND, Chars(complement(only)), _AROUND])
        return Both(texts, optional(other) if lengths(node)[0] else other)
    if row is not None:
        parts = [optional(sequence([Chars(complement(one)), _AROUND])) for one in row]
        begun = [Chars(one) for one in row]
        fewer = [sequence([*begun[:place], part]) for place, part in enumerate(parts)]
        longer = [sequence([*begun, Repeat(ANY, 1, None)])] if ends else []
        return Both(texts, any_of([*fewer, *longer]))
    if not ends and isinstance(node, Sequence) and len(node.parts) == 2:
        before, word = _any_number(node.parts[0]), node.parts[1]
        # What lies behind a line's end is not looked at; there, too, nothing of it is written.
        if before and isinstance(word, Text) and not difference(complement(before), of("\n\r\u2028\u2029")):
            return Without(texts, (word.text,))
    raise PatternError(f"the look-ahead (?! {_ADVICE}")


def _any_number(node: Node) -> Ranges | None:
    """The set of which a node is any number of characters, or at least one; None where it is something else."""
    if not isinstance(node, Repeat) or node.most is not None or node.least > 1:
        return None
    row = _row(node.part)
    return row[0] if row and len(row) == 1 else None


def _row(node: Node) -> list[Ranges] | None:
    """The sets of a row of single characters; None where it is something else."""
    found: list[Ranges] = []
    for part in node.parts if isinstance(node, Sequence) else (node,):
        if isinstance(part, Text):
            found += [of(character) for character in part.text]
        elif isinstance(part, Chars):
            found.append(part.ranges)
        else:
            return None
    return found or None
