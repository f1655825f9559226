"""JSON Schema as trees, in JSON or in the notation of calls.

(placeholder)
"""

from __future__ import annotations

from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.grammar.build import size
from redraft.text.grammar.nodes import Node
from redraft.text.schema.notation import JSON, Notation
from redraft.text.schema.unfold import Unfolder
from redraft.text.schema.writer import TooLarge, TreeWriter

RECURSION, LARGEST = 3, 400_000


def schema_node(schema: Any, notation: Notation = JSON, path: str = "", root: Any = None) -> Node:
    """The tree of every text that is written.

    Args:
        schema: a mapping, or true for any value.
        notation: how values are written.
        path: where the schema stands, for errors.
        root: what references start from; None is the schema itself.

    Raises:
        SchemaError: a keyword that cannot be enforced, or a schema that nothing satisfies.
    """
    for recursion in range(RECURSION, 0, -1):
        try:
            found = TreeWriter(Unfolder(schema if root is None else root, recursion), notation).value(schema, path)
        except TooLarge:
            if recursion == 1:
                raise
        else:
            if size(found) <= LARGEST:
                return found
    raise SchemaError(path, "the schema is too large: list fewer values or split it")
