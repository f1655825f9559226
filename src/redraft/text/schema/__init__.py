"""JSON Schema, draft 2020-12 with the forms of draft 7, as trees in JSON or in the notation of calls.

Whatever a tree spells is valid under its schema. What is held, alone and beside each other:

- any value: `type`, `enum`, `const`, `anyOf`, `allOf`, `$ref` (pointers, anchors, identifiers inside the schema),
  `nullable`, `not` of types, values or one required name, `oneOf` where something tells its branches apart (a type, a
  value, bounds, a property's value, a required name), `if` on the values of one property that has an `enum`;
- objects: `properties`, `required`, `additionalProperties`, `unevaluatedProperties`, `propertyNames`,
  `minProperties`, `maxProperties`, `dependentRequired`, `dependentSchemas`,
  `patternProperties` of which no two match one key;
- arrays: `items`, `prefixItems`, `additionalItems`, `unevaluatedItems`, `minItems`, `maxItems`, `uniqueItems`;
- strings: `minLength`, `maxLength`, `pattern`, `format` (those of `formats`; remarks such as `password` say nothing);
- numbers: `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`, `multipleOf` where digits tell.

Remarks (`title`, `discriminator`, `x-...`) are passed over. Any other keyword, and one of these that cannot be held
where it stands, is a `SchemaError` that names it and says what to write instead.

What is written is a part of what a schema allows: properties in the order in which they are declared, and no others
where some are declared; without `type`, values of the type that the keywords speak of; numbers of at most 15 digits on
a side of the point; white space of one blank or one line break with up to six blanks; values of any type nested two
levels deep; formats in their ordinary forms; where length has to be counted beside a pattern, at most 1,000 characters.
References are followed inside themselves three levels deep, and two or one where that would be too large.
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
        unfolder = Unfolder(schema if root is None else root, recursion)
        try:
            found = TreeWriter(unfolder, notation).value(schema, path)
        except TooLarge:
            if recursion == 1 or not unfolder.recursed:
                raise
            continue
        if size(found) <= LARGEST:
            return found
        if not unfolder.recursed:
            break
    raise SchemaError(path, "the schema is too large: list fewer values or split it")
