"""Pictures, and videos, among a message's parts: what is given for each, before anything decodes it.

A part of type `image_url` is OpenAI's, and may come over a network: it holds the picture itself, as a `data:` URL.
Nothing is ever fetched. A part of type `image` is for Python: a path, bytes, a Pillow image or an array.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redraft.core.checks import one_of_integers, shown
from redraft.core.errors import ImageError, OptionError, PromptError
from redraft.core.option_bounds import IMAGE_TOKENS
from redraft.text import video_parts
from redraft.text.video_parts import VideoPart, video_part

IMAGES = ("image", "image_url")
TYPES = (*IMAGES, *video_parts.TYPES)
# Whose words they may stand among.
_ROLES = ("user", "tool")
# OpenAI's word for how closely to look: how many tokens that is.
DETAILS: Mapping[str, int | None] = {"low": 70, "auto": None, "high": 1120}
_DATA = re.compile(r"data:image/(?:png|jpe?g|webp|gif);base64,", re.IGNORECASE)
_EXPECTED = {
    "image_url": "data:image/png, jpeg, webp or gif",
    "video_url": "data:video/mp4, webm or quicktime, or data:image/gif,",
}
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "image": ("type", "image", "image_tokens"),
    "image_url": ("type", "image_url", "image_tokens"),
}
_INSTEAD = {
    "input_image": "send it as image_url",
    "image_file": "send it as image_url",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePart:
    """One picture as it was given.

    Attributes:
        source: its file's bytes, a path, a Pillow image or an array.
        where: what errors call it.
        from_web: whether it may have come over a network.
        image_tokens: how many tokens it may become; None where the request or the model says.
    """

    source: Any
    where: str
    from_web: bool
    image_tokens: int | None


Shown = ImagePart | VideoPart


def shown_part(part: Mapping[str, Any], role: str, where: str) -> Shown:
    """The picture or video of a part that is one of `TYPES`.

    Args:
        part: of a message's content.
        role: of the message.
        where: what errors call the part.

    Raises:
        ImageError: it stands where none may, or is none.
    """
    if part["type"] in IMAGES:
        return image_part(part, role, where)
    return video_part(part, role, where, lambda url: _data_of(url, where, "video_url", video_parts.DATA))


def image_part(part: Mapping[str, Any], role: str, where: str) -> ImagePart:
    """The picture of a part that is one of `IMAGES`; see `shown_part`."""
    kind = part["type"]
    if role not in _ROLES:
        raise ImageError(f"pictures belong to the messages of {' and '.join(_ROLES)}, not to {role!r}", where)
    if unknown := [name for name in part if name not in _KNOWN[kind]]:
        raise ImageError(f"there is no {unknown[0]!r:.80} in a part of type {kind!r}", where)
    own = _tokens(part["image_tokens"], where) if part.get("image_tokens") is not None else None
    if kind == "image":
        if part.get("image") is None:
            raise ImageError("a part of type 'image' needs its 'image': a path, bytes or a Pillow image", where)
        return ImagePart(source=part["image"], where=where, from_web=False, image_tokens=own)
    said = part.get("image_url")
    fields: Mapping[str, Any] = {"url": said} if isinstance(said, str) else said if isinstance(said, Mapping) else {}
    if unknown := [name for name in fields if name not in ("url", "detail")]:
        raise ImageError(f"there is no {unknown[0]!r:.80} in image_url", where)
    detail = fields.get("detail")
    if detail is not None and (not isinstance(detail, str) or detail not in DETAILS):
        raise ImageError(f"detail must be low, auto or high, got {shown(detail)}", where)
    data = _data_of(fields.get("url"), where, "image_url", _DATA)
    return ImagePart(source=data, where=where, from_web=True, image_tokens=own or DETAILS[detail or "auto"])


def refuse_part(part: Any, where: str) -> PromptError:
    """What to say of a part that is neither text nor a picture."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        return PromptError(f"{where} must be a mapping with its 'type', 'text' or 'image_url'")
    instead = f": {_INSTEAD[kind]}" if kind in _INSTEAD else ""
    return PromptError(f"{where} is of type {kind!r:.80}; text, image_url and video_url are read{instead}")


def _tokens(value: object, where: str) -> int:
    try:
        return one_of_integers("image_tokens", value, IMAGE_TOKENS)
    except OptionError as error:
        raise ImageError(str(error), where) from None


def _data_of(url: object, where: str, kind: str, pattern: re.Pattern[str]) -> bytes:
    """The bytes of a `data:` URL."""
    if not isinstance(url, str):
        raise ImageError(f"{kind} needs its 'url', a string", where)
    scheme = url[:20].partition(":")[0].lower()
    if scheme != "data":
        got = f"got {scheme}:" if ":" in url[:20] else "got none"
        raise ImageError(f"only data: URLs are read, {got}; nothing is fetched here", where)
    begin = pattern.match(url)
    if begin is None:
        raise ImageError(f"expected {_EXPECTED[kind]} in base64, got {shown(url[:60])}", where)
    try:
        return base64.b64decode(memoryview(url.encode("ascii"))[begin.end() :], validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ImageError("the base64 is damaged", where) from None
