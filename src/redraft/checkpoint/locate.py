"""From a model's name to its directory: bundled, on disk, or in the local Hub cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from redraft.checkpoint.unread import what_file
from redraft.core.checks import shown
from redraft.core.errors import ModelNotFoundError, OptionError

BUNDLED = Path(__file__).resolve().parent.parent / "models"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_gguf(path: Path) -> bool:
    """Whether a path is that of a GGUF file, by its name."""
    return path.suffix.lower() == ".gguf" and path.is_file()


def check_name(model: object) -> None:
    """Makes sure that this may name a model.

    Raises:
        OptionError: it is neither text nor a path.
    """
    if not isinstance(model, str | os.PathLike) or not isinstance(os.fspath(model), str):
        raise OptionError(f"a model must be a name or a path, got {shown(model)}")


def locate(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The directory of a model, or its GGUF file.

    Raises:
        ModelNotFoundError: there is none; says where was looked.
        OptionError: what was given is no name.
    """
    check_name(model)
    if revision is not None and not isinstance(revision, str):
        raise OptionError(f"revision must be a string, got {shown(revision)}")
    text = os.fspath(model)
    try:
        path = Path(model).expanduser()
        if text and (path.is_dir() or is_gguf(path)):
            return path
        found = bool(text) and path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        # A name too long, a folder that may not be entered, no such user.
        raise ModelNotFoundError(f"no model {text!r:.200}: {error}") from None
    bundled = BUNDLED / text
    if re.fullmatch(r"[\w.-]+", text) and (bundled / "config.json").exists():
        return bundled
    if found:
        raise ModelNotFoundError(f"{text} {what_file(path)}")
    if not isinstance(model, str) or _is_path(text):
        raise ModelNotFoundError(f"no model {text!r:.200}: there is no such directory or file")
    if _HUB_ID.fullmatch(text):
        return _cached(text, revision)
    names = ", ".join(sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))) or "none"
    raise ModelNotFoundError(
        f"no model {text!r:.200}: not a directory, not a GGUF file, not a Hub id, not bundled ({names})"
    )


def _is_path(text: str) -> bool:
    """Whether a name can only be meant for a path: Hub ids have two parts, and neither is a step."""
    parts = text.replace("\\", "/").split("/")
    return (
        (len(parts) != 2 and ("/" in text or "\\" in text))
        or parts[0] in ("", ".", "..")
        or text.startswith("~")
        or text.lower().endswith((".gguf", ".uqff", ".safetensors"))
    )


def _cached(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    beginning = Path(hub_id).parent
    here = f"there is no directory {hub_id!r}" + (f" in {beginning}, which exists" if beginning.is_dir() else "")
    at = "" if revision is None else f" at revision {revision!r}"
    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        raise ModelNotFoundError(
            f"{here}, and no such model in the local Hub cache{at}: fetch it with `hf download {hub_id}`"
        ) from None
    except HFValidationError:
        raise ModelNotFoundError(f"{here}, and {hub_id!r} is no Hub id{at}") from None
