"""Reading single fields of a config, each checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redraft.core.errors import CheckpointError

# Of sizes and of numbers, for fields that no other bound belongs to.
_MOST, _LARGEST = 2**31 - 1, 1e30


class Reader:
    """Fields of one mapping, checked as they are read; a JSON null counts as unset."""

    def __init__(self, fields: Mapping[str, Any], source: str, prefix: str) -> None:
        self.fields, self.source, self.prefix = fields, source, prefix

    def integer(self, name: str, default: int | None = None, most: int = _MOST) -> int:
        value = self.optional(name, default)
        if value is None:
            raise CheckpointError(f"{self.source}: {self.prefix}{name} is missing")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(name, "a positive integer", value)
        if value > most:
            raise self.wrong(name, f"at most {most}", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.optional(name, default)
        if value is None:
            raise CheckpointError(f"{self.source}: {self.prefix}{name} is missing")
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < _LARGEST:
            raise self.wrong(name, "a positive number", value)
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        value = self.optional(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def token_ids(self, name: str, vocabulary: int) -> tuple[int, ...]:
        value = self.optional(name, [])
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            raise self.wrong(name, "a token id or a list of them", value)
        if any(i >= vocabulary for i in ids):
            raise self.wrong(name, f"below the vocabulary's {vocabulary} tokens", value)
        return tuple(ids)

    def mapping(self, name: str, default: Mapping[str, Any]) -> Mapping[str, Any]:
        value = self.optional(name, default)
        if not isinstance(value, Mapping):
            raise self.wrong(name, "a mapping", value)
        return value

    def part(self, name: str, key: str) -> Reader:
        """The fields of one entry of a mapping of mappings."""
        fields = self.mapping(name, {}).get(key)
        if fields is not None and not isinstance(fields, Mapping):
            raise self.wrong(f"{name}.{key}", "a mapping", fields)
        return Reader(fields or {}, self.source, f"{self.prefix}{name}.{key}.")

    def optional(self, name: str, default: Any) -> Any:
        value = self.fields.get(name)
        return default if value is None else value

    def wrong(self, name: str, wanted: str, value: Any) -> CheckpointError:
        return CheckpointError(f"{self.source}: {self.prefix}{name} must be {wanted}, got {value!r:.80}")
