"""What a GGUF file says besides its tensors, as the files that stand in a Hugging Face directory."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from redraft.checkpoint.formats.gguf import open_gguf
from redraft.checkpoint.locate import is_gguf
from redraft.core.files import cache_directory


def write_beside(path: Path, directory: Path) -> None:
    """Writes generation_config.json, the tokenizer and its template."""
    file = open_gguf(path)
    (directory / "generation_config.json").write_text(
        json.dumps(file.generation_config(), indent=2) + "\n", encoding="utf-8"
    )
    file.write_tokenizer(directory)


def sidecar(path: Path) -> Path:
    """The directory with what stands beside a model's weights: its own, or for a GGUF file one that is made of what the
    file says, once, and kept under the user's cache."""
    if not is_gguf(path):
        return path
    stat = path.stat()
    said = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    directory = cache_directory("gguf") / hashlib.sha256(said.encode()).hexdigest()[:16]
    if directory.exists():
        return directory
    with tempfile.TemporaryDirectory(dir=directory.parent) as folder:
        fresh = Path(folder) / "fresh"
        fresh.mkdir()
        write_beside(path, fresh)
        (fresh / "config.json").write_text(json.dumps(open_gguf(path).config(), indent=2) + "\n", encoding="utf-8")
        try:
            os.replace(fresh, directory)
        except OSError:
            # Another process has made the same one meanwhile.
            if not directory.exists():
                raise
    return directory
