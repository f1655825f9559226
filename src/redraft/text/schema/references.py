"""Where references inside a schema lead: pointers, anchors and identifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from redraft.core.errors import SchemaError

# What these hold are values, not schemas.
_VALUES = {"const", "enum", "default", "examples", "example"}
# What these hold are schemas by any name.
_NAMED = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
_DEEPEST = 200


class References:
    """What references from inside a schema lead to."""

    def __init__(self, root: Any) -> None:
        """`root` is what pointers without an identifier start from."""
        self._found: dict[str, Any] = {"": root}
        self._base: dict[int, str] = {}
        self._read(root, "", 0)

    def follow(self, reference: Any, holder: Mapping[str, Any], path: str) -> tuple[str, Any]:
        """(the target's name, the target) of a reference in a schema.

        Raises:
            SchemaError: it leads outside of the schema or nowhere.
        """
        if not isinstance(reference, str):
            raise SchemaError(path, f"must be a text, got {reference!r:.60}")
        base, fragment = urldefrag(_absolute(self._base.get(id(holder), ""), reference, path))
        if fragment and not fragment.startswith("/"):
            base, fragment = f"{base}#{unquote(fragment)}", ""
        if base not in self._found:
            raise SchemaError(
                path, f"{reference!r:.80} leads out of the schema or nowhere: copy what is meant into $defs"
            )
        target = self._found[base]
        for part in fragment.split("/")[1:]:
            target = _inside(target, unquote(part).replace("~1", "/").replace("~0", "~"))
            if target is _NOWHERE:
                raise SchemaError(path, f"{reference!r:.80} leads nowhere: it must name a part of the schema")
        return f"{base}#{fragment}", target

    def _read(self, part: Any, base: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise SchemaError("", "nests too deeply: move parts into $defs")
        if isinstance(part, list | tuple):
            for inner in part:
                self._read(inner, base, depth + 1)
        if not isinstance(part, Mapping):
            return
        identifier = part.get("$id")
        if isinstance(identifier, str) and not identifier.startswith("#"):
            base = urldefrag(_absolute(base, identifier, "$id"))[0]
            self._found.setdefault(base, part)
        elif isinstance(identifier, str):
            # Drafts up to 7 name anchors so.
            self._found.setdefault(f"{base}{identifier}", part)
        self._base[id(part)] = base
        for name in ("$anchor", "$dynamicAnchor"):
            if isinstance(part.get(name), str):
                self._found.setdefault(f"{base}#{part[name]}", part)
        for key, inner in part.items():
            if key in _NAMED and isinstance(inner, Mapping):
                for schema in inner.values():
                    self._read(schema, base, depth + 1)
            elif key not in _VALUES:
                self._read(inner, base, depth + 1)


_NOWHERE = object()


def _absolute(base: str, reference: str, path: str) -> str:
    if base.startswith("urn:") and reference.startswith("#"):
        return base + reference
    try:
        return urljoin(base, reference)
    except ValueError:
        raise SchemaError(path, f"{reference!r:.80} is no address: write #/$defs/name") from None


def _inside(target: Any, part: str) -> Any:
    if isinstance(target, Mapping):
        return target.get(part, _NOWHERE)
    if isinstance(target, list | tuple) and part.isdecimal() and int(part) < len(target):
        return target[int(part)]
    return _NOWHERE
