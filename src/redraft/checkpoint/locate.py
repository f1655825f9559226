"""From a model's name to its directory: bundled, on disk, or in the local Hub cache."""

from __future__ import annotations

import re
from pathlib import Path

from redraft.core.errors import ModelNotFoundError

BUNDLED = Path(__file__).resolve().parent.parent / "models"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, by its name."""
    return path.suffix.lower() == ".gguf" and path.is_file()


def locate(model: str | Path, revision: str | None = None) -> Path:
    """The directory of a model.

    Raises:
        ModelNotFoundError: there is none; says where was looked.
    """
    directory = Path(model).expanduser()
    if directory.is_dir() or is_gguf(directory):
        return directory
    bundled = BUNDLED / str(model)
    if re.fullmatch(r"[\w.-]+", str(model)) and (bundled / "config.json").exists():
        return bundled
    if _HUB_ID.fullmatch(str(model)):
        return _cached(str(model), revision)
    names = ", ".join(sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))) or "none"
    raise ModelNotFoundError(
        f"no model {str(model)!r}: not a directory, not a GGUF file, not a Hub id, not bundled ({names})"
    )


def _cached(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        raise ModelNotFoundError(
            f"{hub_id!r} is neither a directory nor in the local Hub cache: fetch it with `hf download {hub_id}`"
        ) from None
