"""Random schemas of every keyword that is held, alone and beside others, and values beside those that they allow."""

from __future__ import annotations

import json
import random
from typing import Any

KEYS = ["a", "b", "kind", "größe", "x-1", 'quote"d', "n/m", "~t", "%41"]
PATTERNS = [
    "^[a-z]+$", "b", r"^\d{2,4}$", r"^\S+$", "^(eins|zwei)", r"\.$", "^a|b$", r"^[^\s\w]?x", "^.{3}$", "^$",
    r"^[\w-]+@x$", "a{2}", r"^\u00e4+\/?$", "(?:q)(?:r|s)*?",
]  # fmt: skip
SCALARS = [None, True, False, 0, 1, -7, 2.5, "", "a", "zwei", "x@x", 'q"\\\n', "größe", 100]
STRING_FORMATS = [
    "date",
    "time",
    "date-time",
    "uuid",
    "email",
    "ipv4",
    "ipv6",
    "duration",
    "hostname",
    "uri",
    "uri-reference",
]


class WideSchemas:
    """A source of schemas: `defs` is what references lead to."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.defs = rng, dict[str, Any]()

    def schema(self) -> dict[str, Any]:
        """A whole schema, its definitions with it."""
        found = self.any(3)
        return {**found, "$defs": self.defs} if self.defs else found

    def any(self, depth: int) -> dict[str, Any]:
        kinds = ["string", "number", "integer", "values", "boolean", "null"]
        if depth:
            kinds += ["object", "object", "array", "array", "mapping", "combined", "combined", "reference", "together"]
        return getattr(self, "_" + self.rng.choice(kinds))(depth)

    def _some(self, chances: dict[str, Any], chance: float = 0.4) -> dict[str, Any]:
        return {key: value for key, value in chances.items() if self.rng.random() < chance}

    def _bounds(self, low: str, high: str, highest: int) -> dict[str, Any]:
        least, most = sorted(self.rng.randint(0, highest) for _ in range(2))
        return self._some({low: least, high: most})

    def _string(self, depth: int) -> dict[str, Any]:
        found = {"type": "string", **self._bounds("minLength", "maxLength", 12)}
        found |= self._some({"pattern": self.rng.choice(PATTERNS)}, 0.3)
        return (
            found if "pattern" in found else {**found, **self._some({"format": self.rng.choice(STRING_FORMATS)}, 0.3)}
        )

    def _number(self, depth: int) -> dict[str, Any]:
        low, high = sorted(self.rng.choice([-100, -3, -0.5, 0, 0.25, 1, 7, 99.5, 1000]) for _ in range(2))
        bounds = self._some({self.rng.choice(["minimum", "exclusiveMinimum"]): low})
        bounds |= self._some({self.rng.choice(["maximum", "exclusiveMaximum"]): high + 3})
        return {"type": "number", **bounds, **self._some({"multipleOf": self.rng.choice([0.5, 0.25, 1, 3])}, 0.2)}

    def _integer(self, depth: int) -> dict[str, Any]:
        steps = self._some({"multipleOf": self.rng.choice([1, 2, 3, 5, 10, 12, 25, 1000])}, 0.4)
        return {**self._number(depth), "type": "integer", **steps}

    def _values(self, depth: int) -> dict[str, Any]:
        values = self.rng.sample([*SCALARS, [1, "zwei"], {"a": 1}, {"kind": "a", "b": [None]}], self.rng.randint(1, 4))
        found = {"const": values[0]} if self.rng.random() < 0.3 else {"enum": values}
        return {**found, **self._some({"type": ["string", "integer", "null"], "minLength": 1, "maximum": 50}, 0.2)}

    def _boolean(self, depth: int) -> dict[str, Any]:
        return {"type": "boolean"}

    def _null(self, depth: int) -> dict[str, Any]:
        return {"type": "null", "x-note": "none"}

    def _object(self, depth: int) -> dict[str, Any]:
        keys = self.rng.sample(KEYS, self.rng.randint(1, 4))
        found: dict[str, Any] = {"type": "object", "properties": {key: self.any(depth - 1) for key in keys}}
        found["required"] = [key for key in [*keys, "undeclared"] if self.rng.random() < (0.4 if key in keys else 0.1)]
        found |= self._some({"additionalProperties": self.rng.choice([False, True, {"type": "integer"}])})
        found |= self._some({"dependentRequired": {keys[0]: [keys[-1]]}}, 0.2)
        found |= self._some({"dependentSchemas": {keys[0]: {"required": [keys[-1]]}}}, 0.1)
        found |= self._some({"patternProperties": {"^[a-b]$": self.any(0)}}, 0.1)
        found |= self._some({"propertyNames": {"maxLength": 6}}, 0.1)
        return found | self._some(
            {"maxProperties": self.rng.randint(1, 3), "minProperties": self.rng.randint(0, 2)}, 0.2
        )

    def _mapping(self, depth: int) -> dict[str, Any]:
        found = {"type": "object", **self._some({"maxProperties": 2, "minProperties": 1})}
        kind = self.rng.choice(["any", "pattern", "names"])
        if kind == "pattern":
            return {**found, "patternProperties": {self.rng.choice(PATTERNS): self.any(depth - 1)}}
        names = {"pattern": "^[a-z]"} if self.rng.random() < 0.5 else {"enum": ["a", "b", 1]}
        found |= {"propertyNames": names} if kind == "names" else {}
        return {**found, "additionalProperties": self.any(depth - 1)}

    def _array(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "array", **self._bounds("minItems", "maxItems", 3)}
        found |= self._some({"items": self.rng.choice([False, self.any(depth - 1)])}, 0.8)
        if self.rng.random() < 0.25:
            return {**found, "prefixItems": [self.any(depth - 1) for _ in range(self.rng.randint(1, 3))]}
        return {**found, **self._some({"uniqueItems": True}, 0.3)}

    def _combined(self, depth: int) -> dict[str, Any]:
        keyword = self.rng.choice(["anyOf", "oneOf", "allOf"])
        branches = [self.any(depth - 1) for _ in range(self.rng.randint(1, 3))]
        beside = self._some({"type": self.rng.choice(["object", "string", ["string", "null", "array"]])}, 0.2)
        return {keyword: branches, "title": keyword, **beside}

    def _reference(self, depth: int) -> dict[str, Any]:
        name = self.rng.choice(["node", "n/m", "p%q"])
        if name not in self.defs:
            self.defs[name] = True
            self.defs[name] = self.any(depth - 1)
        target = name.replace("~", "~0").replace("/", "~1").replace("%", "%25")
        return {"$ref": f"#/$defs/{target}", **self._some({"description": "d", "minLength": 1}, 0.3)}

    def _together(self, depth: int) -> dict[str, Any]:
        """Objects that are described in two places, or that differ in one property."""
        kinds = [{"properties": {"kind": {"const": kind}, "b": self.any(depth - 1)}} for kind in ("a", "zwei")]
        if self.rng.random() < 0.5:
            return {"type": "object", "oneOf": kinds, "required": self._some({"kind": 1, "a": 1}, 0.5).keys() | set()}
        first, second = self._object(depth), self._object(depth)
        return {**first, "allOf": [second]}


def listed(schema: Any) -> Any:
    """The schema as JSON has it."""
    return json.loads(json.dumps(schema, default=sorted))


def changed(value: Any, rng: random.Random) -> Any:
    """A value a little beside another one."""
    if isinstance(value, dict) and value and rng.random() < 0.7:
        key = rng.choice(list(value))
        kept = {k: v for k, v in value.items() if k != key}
        return rng.choice([kept, {**value, key: changed(value[key], rng)}, {**value, "new": 1}])
    if isinstance(value, list) and value and rng.random() < 0.7:
        place = rng.randrange(len(value))
        other = changed(value[place], rng)
        return rng.choice([value[:place] + value[place + 1 :], [*value[:place], other], [*value, value[place]]])
    if isinstance(value, str) and rng.random() < 0.7:
        return rng.choice([value + "a", value[1:], value[:-1], value.upper(), value * 2, value + "\n"])
    if isinstance(value, int | float) and rng.random() < 0.7:
        return rng.choice([value + 1, value - 1, -value, value * 10, value + 0.5])
    return rng.choice(SCALARS)
