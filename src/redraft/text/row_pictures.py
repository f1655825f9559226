"""Pictures in rows of a file: a path there is counted from a folder, and never leads out of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redraft.core.checks import shown
from redraft.text.image_parts import DETAILS, TYPES
from redraft.text.video_parts import TYPES as VIDEOS

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def found_parts(content: Any, folder: Path, where: str) -> Any:
    """A message's content with the paths of its pictures as they are found from anywhere; other parts as they are.

    A picture is a part `{"type": "image", "image": "a.png"}`, or OpenAI's `image_url` whose URL is such a path or holds
    the picture itself.

    Args:
        content: of a message in a file.
        folder: what paths are counted from.
        where: what errors call the message.

    Raises:
        ValueError: a path that leads out of the folder.
    """
    if not isinstance(content, list):
        return content
    return [
        _found(part, folder, f"{where}, part {place}") if isinstance(part, Mapping) else part
        for place, part in enumerate(content)
    ]


def _found(part: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    # Tables that hold parts of several kinds fill them up with nulls.
    part = {name: value for name, value in part.items() if value is not None}
    if part.get("type") not in TYPES:
        return part
    if part["type"] in VIDEOS:
        raise ValueError(f"{where} is a video: rows hold pictures, give frames of it")
    if part["type"] == "image":
        path = part.get("image")
        if not isinstance(path, str) or not path:
            raise ValueError(f"{where} needs its 'image', the path of a file, got {shown(path)}")
        return part | {"image": _inside(path, folder, where)}
    said = part.get("image_url")
    url = said.get("url") if isinstance(said, Mapping) else said
    if not isinstance(url, str) or not url or _SCHEME.match(url):
        # A URL that holds its picture, or is refused like one of a request.
        return part
    detail = said.get("detail") if isinstance(said, Mapping) else None
    own = DETAILS.get(detail) if isinstance(detail, str) else None
    rest = {name: value for name, value in part.items() if name not in ("type", "image_url")}
    tokens = {} if own is None else {"image_tokens": own}
    return {"type": "image", "image": _inside(url, folder, where)} | tokens | rest


def _inside(path: str, folder: Path, where: str) -> str:
    try:
        home = folder.resolve()
        found = (home / path).resolve()
    except (OSError, RuntimeError, ValueError):
        raise ValueError(f"{where}: {shown(path)} is no path") from None
    if not found.is_relative_to(home):
        raise ValueError(
            f"{where}: {shown(path)} leads out of {folder}: move the picture there, or name a folder that holds it "
            "with `images` beside the file's path in the recipe"
        )
    return str(found)
