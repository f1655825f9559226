"""Schemas as alternatives without references and combinations: what the writer of trees starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from redraft.core.errors import SchemaError
from redraft.text.schema.checks import TYPES, among, is_of, joined, listed
from redraft.text.schema.exclusive import outside
from redraft.text.schema.fits import fits
from redraft.text.schema.flat import Flat, of_key, together
from redraft.text.schema.keywords import COMBINED, check_names, plain
from redraft.text.schema.references import References

MOST_ALTERNATIVES, MOST_FOLLOWED = 256, 100


class Recursion(SchemaError):
    """A reference inside itself, too deep; whoever can do without it does."""


class Impossible(Recursion):
    """A schema that nothing satisfies."""


class Unfolder:
    """One schema's parts as alternatives.

    Attributes:
        recursion: how often a reference is followed inside itself.
        recursed: whether one has been.
    """

    def __init__(self, root: Any, recursion: int) -> None:
        self.references, self.recursion, self.recursed = References(root), recursion, False
        # References that are being followed without a value between them.
        self._open: list[str] = []

    def fits(self, value: Any, flat: Flat) -> bool:
        """Whether a value is one that a schema allows."""
        kept, self._open = self._open, []
        try:
            return fits(value, flat, self.alternatives)
        finally:
            self._open = kept

    def alternatives(self, schema: Any, path: str, followed: tuple[str, ...] = ()) -> list[Flat]:
        """What a schema allows, one of which holds; none where nothing satisfies it.

        Raises:
            SchemaError: keywords that are unknown, wrong or cannot be enforced.
            Recursion: every alternative asks for the schema itself.
        """
        if schema is True or schema is False:
            return [Flat({}, path, {}, followed)] * schema
        if not isinstance(schema, Mapping):
            raise SchemaError(path, f"a schema is a mapping or true, got {schema!r:.60}")
        check_names(schema, path)
        found = [Flat(plain(schema, path), path, {"const": path} if "const" in schema else {}, followed)]
        for keyword in COMBINED:
            if keyword in schema:
                branches = getattr(self, "_" + keyword.strip("$"))
                found = branches(schema, found, joined(path, keyword), followed)
                if len(found) > MOST_ALTERNATIVES:
                    raise SchemaError(
                        joined(path, keyword), f"comes to more than {MOST_ALTERNATIVES} alternatives: write fewer"
                    )
        found = self._negated(schema, found, path)
        if "if" in schema:
            found = self._conditional(schema, found, path, followed)
        for keyword, instead in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
            if keyword in schema:
                # Only what is described is written, so that nothing stays without evaluation but by these.
                found = [f if instead in f.keywords else f.part(**{instead: schema[keyword]}) for f in found]
        if schema.get("nullable") is True and not any("null" in f.get("type", TYPES) for f in found):
            found.append(Flat({"type": ["null"]}, path, {}, followed))
        return found

    def _joined(self, found: list[Flat], branch: Any, path: str, followed: tuple[str, ...]) -> list[Flat]:
        inner = self.alternatives(branch, path, followed)
        if len(found) * len(inner) > 4 * MOST_ALTERNATIVES:
            raise SchemaError(path, f"comes to more than {MOST_ALTERNATIVES} alternatives: write fewer")
        pairs = [together(one, other) for one in found for other in inner]
        return [pair for pair in pairs if pair is not None]

    def _ref(self, schema: Any, found: list[Flat], path: str, followed: tuple[str, ...]) -> list[Flat]:
        name, target = self.references.follow(schema["$ref"], schema, path)
        if len(followed) >= MOST_FOLLOWED:
            raise SchemaError(path, f"more than {MOST_FOLLOWED} references lead to each other: write out some")
        self.recursed |= name in followed
        if followed.count(name) >= self.recursion or name in self._open:
            raise Recursion(path, "the schema asks for itself without end: make it optional, or null in anyOf")
        self._open.append(name)
        try:
            return self._joined(found, target, path, (*followed, name))
        finally:
            self._open.pop()

    def _allOf(self, schema: Any, found: list[Flat], path: str, followed: tuple[str, ...]) -> list[Flat]:
        for number, branch in enumerate(_branches(schema["allOf"], path)):
            found = self._joined(found, branch, f"{path}.{number}", followed)
        return found

    def _anyOf(self, schema: Any, found: list[Flat], path: str, followed: tuple[str, ...]) -> list[Flat]:
        return [flat for _, branch in self._each(schema["anyOf"], found, path, followed) for flat in branch]

    def _oneOf(self, schema: Any, found: list[Flat], path: str, followed: tuple[str, ...]) -> list[Flat]:
        kept: list[Flat] = []
        branches = self._each(schema["oneOf"], found, path, followed)
        # All of each branch, however deep in a recursion this is asked for.
        begun = [replace(flat, followed=()) for flat in found]
        every = [
            self._joined(begun, branch, f"{path}.{place}", ()) if len(schema["oneOf"]) > 1 else []
            for place, branch in enumerate(schema["oneOf"])
        ]
        for place, branch in branches:
            others = [flat for number, flats in enumerate(every) if number != place for flat in flats]
            for flat in branch:
                alone: Flat | None = flat
                for other in others:
                    alone = outside(alone, other.all, self.fits) if alone else None
                if alone is None:
                    raise SchemaError(
                        path,
                        "its branches do not exclude each other by type, value, bounds or properties: use anyOf, or"
                        " give each a required property with a const of its own",
                    )
                kept.append(alone)
        return kept

    def _each(
        self, branches: Any, found: list[Flat], path: str, followed: tuple[str, ...]
    ) -> list[tuple[int, list[Flat]]]:
        """(its place, what it comes to) of each branch that is not too deep in a recursion."""
        kept, last = [], None
        for number, branch in enumerate(_branches(branches, path)):
            try:
                kept.append((number, self._joined(found, branch, f"{path}.{number}", followed)))
            except Recursion as error:
                last = error
        if not kept and last:
            raise last
        return kept

    def _negated(self, schema: Mapping[str, Any], found: list[Flat], path: str) -> list[Flat]:
        if "not" not in schema:
            return found
        barred, at = schema["not"], joined(path, "not")
        if barred is True or barred == {}:
            return []
        if barred is False or barred == {"not": {}}:
            return found
        if isinstance(barred, Mapping):
            check_names(barred, at)
            if set(barred) == {"type"}:
                kept = [flat for flat in (_without_types(flat, plain(barred, at)["type"]) for flat in found) if flat]
                if all(
                    "integer" not in plain(barred, at)["type"] or "number" not in f.get("type", TYPES) for f in kept
                ):
                    return kept
            if set(barred) in ({"enum"}, {"const"}):
                return [_without_values(flat, plain(barred, at)["enum"], at) for flat in found]
            if set(barred) == {"required"} and len(plain(barred, at)["required"]) == 1:
                key = plain(barred, at)["required"][0]
                kept = [flat for flat in found if key not in flat.get("required", ())]
                return [flat.changed(properties={**flat.get("properties", {}), key: False}) for flat in kept]
        raise SchemaError(at, "this keyword cannot be enforced: say what is allowed, by type, enum, pattern or bounds")

    def _conditional(
        self, schema: Mapping[str, Any], found: list[Flat], path: str, followed: tuple[str, ...]
    ) -> list[Flat]:
        if "then" not in schema and "else" not in schema:
            return found
        at = joined(path, "if")
        condition = self.alternatives(schema["if"], at, followed)
        kept: list[Flat] = []
        for flat in found:
            for branch, whether in (("then", True), ("else", False)):
                for part in _where(flat, condition, whether, at):
                    kept += self._joined([part], schema.get(branch, True), joined(path, branch), followed)
        return kept


def _where(flat: Flat, condition: list[Flat], whether: bool, path: str) -> list[Flat]:
    """The values of a schema for which a condition on one property's values holds, or does not."""
    own = condition[0].keywords if len(condition) == 1 else {}
    properties = own.get("properties", {})
    key = next(iter(properties), "")
    barred = properties.get(key)
    values = None
    if set(own) <= {"properties", "required", "type"} and len(properties) == 1 and isinstance(barred, Mapping):
        values = (
            [barred["const"]] if set(barred) == {"const"} else barred.get("enum") if set(barred) == {"enum"} else None
        )
    described = of_key(flat, key)
    known = _known_values(described)
    if values is None or known is None or own.get("required", [key]) != [key]:
        raise SchemaError(
            path, "can be enforced only as a const or enum of one property that has an enum beside it: use anyOf with a"
            " const in each branch"
        )  # fmt: skip
    kept = [value for value in known if among(value, values) == whether]
    found = [_with_required(flat.changed(properties={**flat.get("properties", {}), key: {"enum": kept}}), key)]
    found = found if kept else []
    # Without the property, a condition that does not require it holds.
    if key not in flat.get("required", ()) and whether == ("required" not in own):
        found.append(flat.changed(properties={**flat.get("properties", {}), key: False}))
    return found


def _known_values(schema: Any) -> list[Any] | None:
    if isinstance(schema, Mapping) and "const" in schema:
        return [schema["const"]]
    if isinstance(schema, Mapping) and schema.get("type") == "boolean":
        return [True, False]
    return schema.get("enum") if isinstance(schema, Mapping) else None


def _branches(value: Any, path: str) -> list[Any]:
    found = listed(value, path)
    if not found:
        raise SchemaError(path, "must not be empty: remove it, or list schemas")
    return found


def _with_required(flat: Flat, key: str) -> Flat:
    return flat.changed(required=list(dict.fromkeys([*flat.get("required", ()), key])))


def _without_types(flat: Flat, barred: list[str]) -> Flat | None:
    kinds = flat.get("type", [kind for kind in TYPES if kind != "integer"])
    kept = [kind for kind in kinds if kind not in barred and not (kind == "integer" and "number" in barred)]
    return flat.changed(type=kept) if kept else None


def _without_values(flat: Flat, barred: list[Any], path: str) -> Flat:
    values = flat.get("enum")
    if values is not None:
        return flat.changed(enum=[value for value in values if not among(value, barred)])
    kinds = flat.get("type")
    if kinds is not None and not any(is_of(value, kind) for value in barred for kind in kinds):
        return flat
    raise SchemaError(path, "can be enforced only beside an enum: list the values that are allowed")
