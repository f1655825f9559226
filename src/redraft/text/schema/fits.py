"""Whether a value fits a schema, for `enum` and `const` beside other keywords."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from redraft.text.schema.checks import among, is_of, limits
from redraft.text.schema.flat import Flat, of_key, searched

Alternatives = Callable[[Any, str], list[Flat]]

_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def fits(value: Any, flat: Flat, alternatives: Alternatives) -> bool:
    """Whether a value is one that a schema allows.

    Args:
        value: of JSON.
        flat: the schema.
        alternatives: what makes such schemas of its parts.

    Raises:
        SchemaError: a part of the schema that cannot be enforced.
    """
    if "type" in flat.keywords and not any(is_of(value, kind) for kind in flat.get("type")):
        return False
    if "enum" in flat.keywords and not among(value, flat.get("enum")):
        return False
    if isinstance(value, str):
        return _string(value, flat)
    if is_of(value, "number"):
        return _number(value, flat)
    if isinstance(value, Mapping):
        return _object(value, flat, alternatives)
    return not isinstance(value, list | tuple) or _array(value, flat, alternatives)


def _inside(value: Any, schema: Any, flat: Flat, alternatives: Alternatives) -> bool:
    return any(fits(value, one, alternatives) for one in alternatives(schema, flat.path))


def _between(amount: int, flat: Flat, low: str, high: str) -> bool:
    return flat.get(low, 0) <= amount <= flat.get(high, amount)


def _string(value: str, flat: Flat) -> bool:
    return (
        _between(len(value), flat, "minLength", "maxLength")
        and all(searched(pattern, flat.at("pattern"))(value) for pattern in flat.get("pattern", ()))
        and all(_of_format(value, name) for name in flat.get("format", ()))
    )


def _of_format(value: str, name: str) -> bool:
    """Whether a text is of one of the formats that machines read; others are taken at their author's word."""
    try:
        if name == "date":
            return len(value) == 10 and bool(datetime.date.fromisoformat(value))
        if name in ("ipv4", "ipv6"):
            return ipaddress.ip_address(value).version == int(name[3:])
    except ValueError:
        return False
    return _UUID.fullmatch(value) is not None if name == "uuid" else True


def _number(value: int | float, flat: Flat) -> bool:
    low, high, open_low, open_high = limits(flat.keywords)
    if low is not None and (value < low or (open_low and value == low)):
        return False
    if high is not None and (value > high or (open_high and value == high)):
        return False
    return "multipleOf" not in flat.keywords or (Fraction(value) / Fraction(flat.get("multipleOf"))).denominator == 1


def _object(value: Mapping[str, Any], flat: Flat, alternatives: Alternatives) -> bool:
    if not _between(len(value), flat, "minProperties", "maxProperties"):
        return False
    if any(key not in value for key in flat.get("required", ())):
        return False
    names = flat.get("propertyNames", True)
    return (
        all(_inside(key, names, flat, alternatives) for key in value)
        and all(_inside(part, of_key(flat, key), flat, alternatives) for key, part in value.items())
        and all(_inside(value, schema, flat, alternatives) for key, schema in flat.get("dependent", ()) if key in value)
    )


def _array(value: Sequence[Any], flat: Flat, alternatives: Alternatives) -> bool:
    if not _between(len(value), flat, "minItems", "maxItems"):
        return False
    if flat.get("uniqueItems") and any(among(item, value[:place]) for place, item in enumerate(value)):
        return False
    first = flat.get("prefixItems", [])
    schemas = [first[place] if place < len(first) else flat.get("items", True) for place in range(len(value))]
    return all(_inside(item, schema, flat, alternatives) for item, schema in zip(value, schemas, strict=True))
