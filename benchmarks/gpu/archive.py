"""An archive of what Triton has compiled, to be carried to another machine. Imports nothing but Python."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

# What a device loads, and how Triton finds it; all else is what it was made from.
_CARRIED = (".cubin", ".hsaco", ".json", ".so")
# Of a group of files: Triton keeps where they are.
_GROUP = "__grp__"


def pack(folder: Path, archive: Path, at: str) -> None:
    """Writes what a device needs of a cache, under relative names; `at` is where it will be looked for."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in _CARRIED):
            name, content = path.relative_to(folder), path.read_bytes()
            _add(tar, str(name), _moved(content, Path(at) / name.parent) if path.name.startswith(_GROUP) else content)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))


def _moved(group: bytes, folder: Path) -> bytes:
    """A group of files that lie in this folder."""
    names = [name for name in json.loads(group)["child_paths"] if Path(name).suffix in _CARRIED]
    return json.dumps({"child_paths": {name: str(folder / name) for name in names}}).encode()


def unpack(archive: Path, folder: Path) -> int:
    """Puts an archive into a cache, wherever that is; returns the number of files."""
    count = 0
    with tarfile.open(archive) as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            path = folder / entry.name
            if content is None or not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"no file of a cache: {entry.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content.read()
            path.write_bytes(_moved(data, path.parent.absolute()) if path.name.startswith(_GROUP) else data)
            count += 1
    return count
