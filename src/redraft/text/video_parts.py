"""Videos among a message's parts: each is shown as frames, evenly spaced, with the time of each before it.

A part of type `video_url` may come over a network: it holds the video itself, as a `data:` URL. A part of type `video`
is for Python: a path or a file's bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.core.checks import integer, one_of_integers, shown
from redraft.core.errors import ImageError, OptionError
from redraft.core.option_bounds import IMAGE_TOKENS

TYPES = ("video", "video_url")
_ROLES = ("user", "tool")
# What Gemma 4's own processor takes of one, and how closely it looks at each.
FRAMES, FRAME_TOKENS = 32, 70
MOST_FRAMES = 256
DATA = re.compile(r"data:video/(?:mp4|webm|quicktime)(?:;codecs=[^;,]{0,80})?;base64,|data:image/gif;base64,", re.I)
_KNOWN: Mapping[str, tuple[str, ...]] = {name: ("type", name, "image_tokens", "frames") for name in TYPES}


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoPart:
    """One video as it was given.

    Attributes:
        source: its file's bytes, or a path.
        where: what errors call it.
        from_web: whether it may have come over a network.
        image_tokens: how many tokens a frame may become.
        frames: the most that are looked at.
    """

    source: Any
    where: str
    from_web: bool
    image_tokens: int
    frames: int


def video_part(part: Mapping[str, Any], role: str, where: str, data_of: Any) -> VideoPart:
    """The video of a part that is one of `TYPES`.

    Args:
        part: of a message's content.
        role: of the message.
        where: what errors call the part.
        data_of: reads a `data:` URL.

    Raises:
        ImageError: it stands where none may, or is none.
    """
    kind = part["type"]
    if role not in _ROLES:
        raise ImageError(f"videos belong to the messages of {' and '.join(_ROLES)}, not to {role!r}", where)
    if unknown := [name for name in part if name not in _KNOWN[kind]]:
        raise ImageError(f"there is no {unknown[0]!r:.80} in a part of type {kind!r}", where)
    frames = integer(part["frames"]) if part.get("frames") is not None else FRAMES
    if frames is None or not 1 <= frames <= MOST_FRAMES:
        raise ImageError(f"frames must be 1 to {MOST_FRAMES}, got {shown(part['frames'])}", where)
    tokens = FRAME_TOKENS
    if part.get("image_tokens") is not None:
        try:
            tokens = one_of_integers("image_tokens", part["image_tokens"], IMAGE_TOKENS)
        except OptionError as error:
            raise ImageError(str(error), where) from None
    given = part.get(kind)
    if given is None:
        wanted = "a path or a file's bytes" if kind == "video" else "with its 'url'"
        raise ImageError(f"a part of type {kind!r} needs its {kind!r}, {wanted}", where)
    if kind == "video_url":
        if isinstance(given, Mapping) and (unknown := [name for name in given if name != "url"]):
            raise ImageError(f"there is no {unknown[0]!r:.80} in video_url", where)
        given = data_of(given if isinstance(given, str) else given.get("url") if isinstance(given, Mapping) else None)
    return VideoPart(source=given, where=where, from_web=kind == "video_url", image_tokens=tokens, frames=frames)
