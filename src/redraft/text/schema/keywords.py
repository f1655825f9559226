"""The keywords of JSON Schema: which are known, which are remarks, which cannot be enforced; plain ones, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.schema.checks import OF_NUMBERS, among, count, joined, listed, mapping, names, number, types
from redraft.text.schema.formats import FORMATS, RANGES, REMARKS

ANNOTATIONS = {
    "title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions", "deprecated",
    "readOnly", "writeOnly", "nullable", "strict", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "id",
    "discriminator", "example", "xml", "externalDocs", "contentEncoding", "contentMediaType", "contentSchema",
    "markdownDescription", "enumNames", "enumDescriptions", "propertyOrdering", "propertyOrder",
    "enumTitles", "errorMessage", "tsType",
}  # fmt: skip
OF_TYPE = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties", "patternProperties",
               "propertyNames", "dependent"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern"},
    "number": OF_NUMBERS | {"multipleOf"},
}  # fmt: skip
COMBINED = ("$ref", "allOf", "anyOf", "oneOf")
_LATER = {"not", "if", "then", "else", "unevaluatedProperties", "unevaluatedItems", "format", "type", "enum", "const",
          "dependentRequired", "dependentSchemas", "dependencies", "additionalItems", *COMBINED}  # fmt: skip
_KNOWN = ANNOTATIONS | _LATER | set().union(*OF_TYPE.values()) - {"dependent"}
REFUSED = {
    "contains": "name what must be there with prefixItems, or let items describe all of them",
    "minContains": "name what must be there with prefixItems, or let items describe all of them",
    "maxContains": "let items describe all of them",
    "$dynamicRef": "write $ref",
    "$recursiveRef": "write $ref",
}
_COUNTS = {
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
}  # fmt: skip


def check_names(schema: Mapping[str, Any], path: str) -> None:
    """Refuses keywords that are unknown or cannot be enforced.

    Raises:
        SchemaError: the first of them, by its path, and what to write instead.
    """
    for keyword in schema:
        if not isinstance(keyword, str):
            raise SchemaError(path, f"a keyword must be a text, got {keyword!r:.60}")
        if keyword in REFUSED:
            if keyword == "maxContains" and "contains" not in schema:
                continue
            if keyword == "minContains" and "contains" not in schema:
                continue
            raise SchemaError(joined(path, keyword), f"this keyword cannot be enforced: {REFUSED[keyword]}")
        if keyword not in _KNOWN and not keyword.startswith("x-"):
            raise SchemaError(
                joined(path, keyword), "is no keyword of JSON Schema: remove it, or begin a remark's name with x-"
            )


def meant(keywords: Mapping[str, Any]) -> list[str]:
    """The types that keywords of one type speak of, where no type is named."""
    found = [kind for kind in ("object", "array", "string", "number") if OF_TYPE[kind] & set(keywords)]
    for name in keywords.get("format", ()):
        kind = "string" if name in FORMATS else "number" if name in RANGES else None
        found += [kind] if kind and kind not in found else []
    return found


def plain(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The keywords that stand by themselves, checked, in the forms that `Flat` has.

    Raises:
        SchemaError: a value that is none of the keyword's.
    """
    found: dict[str, Any] = {}
    for keyword, value in schema.items():
        at = joined(path, keyword)
        if keyword == "type":
            found["type"] = types(value, at)
        elif keyword in _COUNTS:
            found[keyword] = count(value, at)
        elif keyword in OF_NUMBERS:
            if isinstance(value, bool) and keyword.startswith("exclusive"):
                raise SchemaError(at, f"a number stands here since draft 6: write {keyword} itself with the bound")
            found[keyword] = number(value, at)
        elif keyword == "multipleOf":
            if number(value, at) <= 0:
                raise SchemaError(at, f"must be more than 0, got {value!r}")
            found[keyword] = value
        elif keyword == "pattern":
            if not isinstance(value, str):
                raise SchemaError(at, f"must be a text, got {value!r:.60}")
            found[keyword] = [value]
        elif keyword == "format":
            found[keyword] = [_format(value, at)]
        elif keyword in ("properties", "patternProperties"):
            found[keyword] = dict(mapping(value, at))
        elif keyword == "required":
            found[keyword] = names(value, at)
        elif keyword in ("additionalProperties", "propertyNames"):
            found[keyword] = value
        elif keyword == "uniqueItems":
            if not isinstance(value, bool):
                raise SchemaError(at, f"must be true or false, got {value!r:.60}")
            found[keyword] = value
    _arrays(schema, path, found)
    if "enum" in schema or "const" in schema:
        values = listed(schema["enum"], joined(path, "enum")) if "enum" in schema else [schema["const"]]
        both = "enum" in schema and "const" in schema
        found["enum"] = [value for value in values if not both or among(value, [schema["const"]])]
    dependent = _dependent(schema, path)
    if dependent:
        found["dependent"] = dependent
    return found


def _format(value: Any, path: str) -> str:
    if not isinstance(value, str) or not (value in FORMATS or value in RANGES or value in REMARKS):
        raise SchemaError(
            path, f"{value!r:.60} is not known: write a pattern, or one of {', '.join(sorted(FORMATS))}; remove it"
            " where it is only a remark"
        )  # fmt: skip
    return value


def _arrays(schema: Mapping[str, Any], path: str, found: dict[str, Any]) -> None:
    first, items = schema.get("prefixItems"), schema.get("items")
    if first is not None:
        found["prefixItems"] = listed(first, joined(path, "prefixItems"))
    if isinstance(items, list | tuple):
        # The form of drafts up to 2019.
        found["prefixItems"] = list(items)
        if "additionalItems" in schema:
            found["items"] = schema["additionalItems"]
    elif items is not None:
        found["items"] = items


def _dependent(schema: Mapping[str, Any], path: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        for key, needs in mapping(schema.get(keyword, {}), joined(path, keyword)).items():
            if isinstance(needs, list | tuple):
                found.append((key, {"required": names(needs, joined(joined(path, keyword), key))}))
            else:
                found.append((key, needs))
    return found
