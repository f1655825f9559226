"""JSON Schema as a regular expression, in JSON or in the notation of calls.

What is enforced: `type` (one or several), `enum`, `const`, `properties` (written in the order in which they are
declared; optional ones may be left out), `required`, `items`, `prefixItems`, `minItems`, `maxItems`, `minLength`,
`maxLength`, `pattern`, `format` (date, time, date-time, uuid, email, ipv4), `minimum`, `maximum`, `exclusiveMinimum`,
`exclusiveMaximum`, `anyOf`, `oneOf` where its branches exclude each other, `allOf` of one, `$ref` inside the schema
(recursion is followed three levels deep), and `additionalProperties` as the values of a mapping without `properties`.
Where `properties` are given, no others are written. Any other keyword is an error that names it.

What is generated is a part of what the schema allows: numbers of at most 15 digits, white space of one blank or one
line break with up to six blanks, values of any type nested two levels deep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.schema_checks import OF_NUMBERS, among, bounds, exclude, is_of, joined, limits, listed
from redraft.text.schema_notation import JSON, Notation
from redraft.text.schema_numbers import INTEGER, NUMBER, integers, numbers
from redraft.text.schema_strings import FORMATS, translated

ANNOTATIONS = {
    "title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions", "deprecated",
    "readOnly", "writeOnly", "nullable", "strict",
}  # fmt: skip
_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": OF_NUMBERS,
    "integer": OF_NUMBERS,
    "boolean": set(),
    "null": set(),
}
_KNOWN = ANNOTATIONS | {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"} | set().union(*_OF_TYPE.values())
RECURSION, ANY_DEPTH, LARGEST = 3, 2, 400_000


def schema_pattern(schema: Any, notation: Notation = JSON, path: str = "", root: Any = None) -> str:
    """The pattern of every text that is written.

    Args:
        schema: a mapping, or true for any value.
        notation: how values are written.
        path: where the schema stands, for errors.
        root: what references start from; None is the schema itself.

    Raises:
        SchemaError: a keyword that is not enforced, or a schema that nothing satisfies.
    """
    pattern = _Writer(schema if root is None else root, notation).value(schema, path)
    if len(pattern) > LARGEST:
        raise SchemaError(path, "the schema is too large: lower its length bounds or split it")
    return pattern


class _Recursion(SchemaError):
    """A reference inside itself, too deep; whoever can do without it does."""


@dataclass
class _Writer:
    root: Any
    notation: Notation
    followed: tuple[str, ...] = ()

    def value(self, schema: Any, path: str) -> str:
        """Any value that the schema allows."""
        if schema is True or schema == {}:
            return self.anything(ANY_DEPTH)
        if schema is False:
            raise SchemaError(path, "nothing satisfies `false`")
        if not isinstance(schema, Mapping):
            raise SchemaError(path, f"a schema is a mapping or true, got {schema!r:.60}")
        for keyword in schema:
            if keyword not in _KNOWN:
                raise SchemaError(joined(path, keyword), "this keyword cannot be enforced: remove it")
        own = {key: part for key, part in schema.items() if key not in ANNOTATIONS}
        for keyword in ("$ref", "anyOf", "oneOf", "allOf"):
            if keyword in own:
                others = set(own) - {keyword}
                if others:
                    raise SchemaError(joined(path, sorted(others)[0]), f"cannot be enforced beside {keyword}")
                return getattr(self, "_" + keyword.strip("$"))(own[keyword], joined(path, keyword))
        if "const" in own or "enum" in own:
            return self._values(own, path)
        kinds = self._kinds(own, path)
        if not kinds:
            return self.anything(ANY_DEPTH)
        return _any_of([getattr(self, "_" + kind)(own, path) for kind in kinds])

    def anything(self, depth: int) -> str:
        """Any value, nested at most so deep."""
        scalars = [self.notation.string(f"{self.notation.strings.character}*"), NUMBER, "true", "false", "null"]
        if depth == 0:
            return _any_of(scalars)
        inner = self.anything(depth - 1)
        key = self.notation.any_key
        return _any_of([*scalars, self.notation.listed(inner, 0, None), self.notation.mapped(key, inner, 0, None)])

    def _kinds(self, own: Mapping[str, Any], path: str) -> list[str]:
        kinds = own.get("type")
        if kinds is None:
            # Keywords of one type say which is meant; without any, anything is.
            kinds = [kind for kind in ("object", "array", "string", "number") if _OF_TYPE[kind] & set(own)]
        kinds = [kinds] if not isinstance(kinds, list | tuple) else list(kinds)
        if "type" in own and not kinds:
            raise SchemaError(joined(path, "type"), "must not be empty")
        for kind in kinds:
            if not isinstance(kind, str) or kind not in _OF_TYPE:
                raise SchemaError(joined(path, "type"), f"{kind!r} is no type: {', '.join(_OF_TYPE)}")
        return [kind for kind in kinds if not (kind == "integer" and "number" in kinds)]

    def _values(self, own: Mapping[str, Any], path: str) -> str:
        others = set(own) - {"const", "enum", "type"}
        if others:
            raise SchemaError(joined(path, sorted(others)[0]), "cannot be enforced beside enum or const")
        values = [own["const"]] if "const" in own else own["enum"]
        if "const" in own and "enum" in own:
            values = [value for value in values if among(value, own["enum"])]
        if not isinstance(values, list | tuple):
            raise SchemaError(joined(path, "enum"), "must be a list")
        kinds = self._kinds(own, path) if "type" in own else None
        fitting = [value for value in values if kinds is None or any(is_of(value, kind) for kind in kinds)]
        if not fitting:
            raise SchemaError(joined(path, "const" if "const" in own else "enum"), "no value is left that it allows")
        return _any_of([self.notation.literal(value, path) for value in fitting])

    def _object(self, own: Mapping[str, Any], path: str) -> str:
        properties, required = own.get("properties") or {}, listed(own.get("required") or (), joined(path, "required"))
        if not isinstance(properties, Mapping):
            raise SchemaError(joined(path, "properties"), f"must be a mapping, got {properties!r:.60}")
        for key in required:
            if key not in properties:
                raise SchemaError(joined(path, "required"), f"{key!r} is not among the properties")
        counts = [name for name in ("minProperties", "maxProperties") if name in own]
        if properties:
            if counts:
                raise SchemaError(joined(path, counts[0]), "cannot be enforced beside properties")
            items = []
            for key, schema in properties.items():
                if not isinstance(key, str):
                    raise SchemaError(joined(path, "properties"), f"a name must be a string, got {key!r:.60}")
                try:
                    value = self.value(schema, joined(joined(path, "properties"), key))
                except _Recursion:
                    if key in required:
                        raise
                    continue
                items.append((self.notation.pair(self.notation.key(key, path), value), key in required))
            return self.notation.record(items)
        if "properties" in own or own.get("additionalProperties") is False:
            return self.notation.record([])
        least, most = bounds(own, "minProperties", "maxProperties", path)
        if least > 1:
            raise SchemaError(joined(path, "minProperties"), "more than 1 cannot be enforced: keys may repeat")
        inner = own.get("additionalProperties", True)
        value = self.anything(1) if inner is True or inner == {} else self._deeper(inner, path, "additionalProperties")
        return (
            self.notation.record([])
            if value is None
            else self.notation.mapped(self.notation.any_key, value, least, most)
        )

    def _deeper(self, schema: Any, path: str, keyword: str) -> str | None:
        try:
            return self.value(schema, joined(path, keyword))
        except _Recursion:
            return None

    def _array(self, own: Mapping[str, Any], path: str) -> str:
        least, most = bounds(own, "minItems", "maxItems", path)
        if own.get("uniqueItems") and (most is None or most > 1):
            raise SchemaError(joined(path, "uniqueItems"), "cannot be enforced")
        first = [
            self.value(part, f"{joined(path, 'prefixItems')}.{i}")
            for i, part in enumerate(own.get("prefixItems") or ())
        ]
        items = own.get("items", not first)
        if first:
            if least > len(first) or (most is not None and most < len(first)) or items not in (False, None):
                raise SchemaError(joined(path, "prefixItems"), "only a list of exactly these items can be enforced")
            return self.notation.sequence(first)
        if items is False:
            most = 0
        inner = None if most == 0 else self._deeper(items, path, "items")
        if inner is None:
            if least:
                raise _Recursion(joined(path, "items"), "the schema asks for itself without end")
            return self.notation.sequence([])
        return self.notation.listed(inner, least, most)

    def _string(self, own: Mapping[str, Any], path: str) -> str:
        least, most = bounds(own, "minLength", "maxLength", path)
        for one, other in (("pattern", "format"), ("pattern", "minLength"), ("pattern", "maxLength"),
                           ("format", "minLength"), ("format", "maxLength")):  # fmt: skip
            if one in own and other in own:
                raise SchemaError(joined(path, other), f"cannot be enforced beside {one}")
        if "pattern" in own:
            return self.notation.string(translated(own["pattern"], self.notation.strings, joined(path, "pattern")))
        if "format" in own:
            if own["format"] not in FORMATS:
                raise SchemaError(joined(path, "format"), f"{own['format']!r} is not known: {', '.join(FORMATS)}")
            return self.notation.string(FORMATS[own["format"]])
        return self.notation.string(f"{self.notation.strings.character}{_counted(least, most)}")

    def _number(self, own: Mapping[str, Any], path: str) -> str:
        if not OF_NUMBERS & set(own):
            return NUMBER
        low, high, open_low, open_high = limits(own, path)
        found = numbers(low, high, open_low=open_low, open_high=open_high)
        if found is None:
            raise SchemaError(
                path, "no number between its bounds can be written: at least one whole number must lie there"
            )
        return found

    def _integer(self, own: Mapping[str, Any], path: str) -> str:
        if not OF_NUMBERS & set(own):
            return INTEGER
        low, high, open_low, open_high = limits(own, path)
        least = None if low is None else low.__floor__() + 1 if open_low else low.__ceil__()
        most = None if high is None else high.__ceil__() - 1 if open_high else high.__floor__()
        found = integers(least, most)
        if found is None:
            raise SchemaError(path, "no integer lies between its bounds")
        return found

    def _boolean(self, own: Mapping[str, Any], path: str) -> str:
        return "(?:true|false)"

    def _null(self, own: Mapping[str, Any], path: str) -> str:
        return "null"

    def _anyOf(self, branches: Any, path: str) -> str:
        found, last = [], None
        for number, branch in enumerate(listed(branches, path)):
            try:
                found.append(self.value(branch, f"{path}.{number}"))
            except _Recursion as error:
                last = error
        if not found:
            raise last or SchemaError(path, "must not be empty")
        return _any_of(found)

    def _oneOf(self, branches: Any, path: str) -> str:
        if any(not exclude(one, other) for i, one in enumerate(listed(branches, path)) for other in branches[:i]):
            raise SchemaError(path, "its branches do not exclude each other by type or value: use anyOf")
        return self._anyOf(branches, path)

    def _allOf(self, branches: Any, path: str) -> str:
        if not isinstance(branches, list) or len(branches) != 1:
            raise SchemaError(path, "only one schema in it can be enforced: merge them")
        return self.value(branches[0], f"{path}.0")

    def _ref(self, reference: Any, path: str) -> str:
        target = self.root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(path, f"only references into the schema itself are followed, got {reference!r}")
        for part in filter(None, reference[1:].split("/")):
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or part not in target:
                raise SchemaError(path, f"{reference!r} leads nowhere")
            target = target[part]
        if self.followed.count(reference) >= RECURSION:
            raise _Recursion(path, "the schema asks for itself without end")
        return _Writer(self.root, self.notation, (*self.followed, reference)).value(target, path)


def _counted(least: int, most: int | None) -> str:
    return "*" if not least and most is None else f"{{{least},{'' if most is None else most}}}"


def _any_of(patterns: list[str]) -> str:
    return patterns[0] if len(patterns) == 1 else f"(?:{'|'.join(dict.fromkeys(patterns))})"
