"""Pictures of rows, as one checkpoint takes them: how many tokens each becomes, before any of them is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redraft.checkpoint.source import Source
from redraft.checkpoint.vision import LazyVision, default_image_tokens
from redraft.core.errors import ImageError
from redraft.model.images import with_room
from redraft.text.image_parts import ImagePart, Shown
from redraft.vision.config import VisionConfig
from redraft.vision.files import FORMATS, Limits, read_bytes
from redraft.vision.picture import picture_of
from redraft.vision.size import grid_of

_BLIND = "there is no vision tower in {path}, which the run begins with"


@dataclass(frozen=True)
class RowPicture:
    """A picture among the ids of a row.

    Attributes:
        start: place of its first placeholder.
        tokens: how many it has.
        source: a path, or its file's content.
        digest: SHA-256 of that content.
        budget: the most tokens that it may become.
    """

    start: int
    tokens: int
    source: str | bytes = field(repr=False)
    digest: bytes = field(repr=False)
    budget: int

    @property
    def end(self) -> int:
        """Behind its last placeholder."""
        return self.start + self.tokens

    def content(self) -> bytes:
        """Its file's content, which is what it was when the row was measured.

        Raises:
            ImageError: it cannot be read any more, or has changed.
        """
        if isinstance(self.source, bytes):
            return self.source
        data = read_bytes(self.source, Limits(), self.source)
        if hashlib.sha256(data).digest() != self.digest:
            raise ImageError("has changed since the run began: begin it again", self.source)
        return data


@dataclass(frozen=True)
class _Known:
    tokens: int
    digest: bytes


class Pictures:
    """What rows with pictures are laid out by. Every picture is decoded once here, so that a damaged one ends a run
    before its first step, and none is kept."""

    def __init__(self, config: VisionConfig, ids: tuple[int, int, int], budget: int) -> None:
        """
        Args:
            config: of the tower.
            ids: of a picture's beginning, of a placeholder, and of its end.
            budget: tokens that a picture may become where its part does not say.
        """
        self.config, self.ids, self.budget = config, ids, budget
        # By where it comes from and its budget.
        self._known: dict[tuple[str | bytes, int], _Known] = {}

    @property
    def digest(self) -> str | None:
        """Digits of all pictures that were laid out; None where none was."""
        found = sorted({known.digest for known in self._known.values()})
        return hashlib.sha256(b"".join(found)).hexdigest()[:32] if found else None

    def laid_out(self, ids: list[int], parts: Sequence[Shown]) -> tuple[list[int], tuple[RowPicture, ...]]:
        """A rendered prompt with room for its pictures.

        Raises:
            ImageError: one cannot be read.
            PromptError: the template has made no room for one.
        """
        pictures = [part for part in parts if isinstance(part, ImagePart)]
        assert len(pictures) == len(parts), "rows hold no videos"
        budgets = [part.image_tokens or self.budget for part in pictures]
        known = [self._measured(part, budget) for part, budget in zip(pictures, budgets, strict=True)]
        found, starts = with_room(ids, [one.tokens for one in known], *self.ids)
        return found, tuple(
            RowPicture(start, one.tokens, part.source, one.digest, budget)
            for start, one, part, budget in zip(starts, known, pictures, budgets, strict=True)
        )

    def _measured(self, part: ImagePart, budget: int) -> _Known:
        where = part.where if isinstance(part.source, bytes) else part.source
        key = hashlib.sha256(part.source).digest() if isinstance(part.source, bytes) else part.source
        if (key, budget) not in self._known:
            data = part.source if isinstance(part.source, bytes) else read_bytes(part.source, Limits(), where)
            height, width = picture_of(data, formats=FORMATS, where=where).pixels.shape[:2]
            rows, columns = grid_of(height, width, budget, self.config.unit)
            self.config.check_side(max(rows, columns) * self.config.pooling_kernel_size)
            self._known[key, budget] = _Known(rows * columns, hashlib.sha256(data).digest())
        return self._known[key, budget]


class NoPictures:
    """In the place of `Pictures`, for a checkpoint that does not see."""

    digest: str | None = None

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def laid_out(self, ids: list[int], parts: Sequence[Shown]) -> tuple[list[int], tuple[RowPicture, ...]]:
        """The ids as they are.

        Raises:
            ImageError: there is a picture.
        """
        if parts:
            raise ImageError(self.reason, parts[0].where)
        return ids, ()


def open_pictures(directory: Path) -> Pictures | NoPictures:
    """What lays out rows with pictures for the checkpoint in a directory; of it, headers are read.

    Raises:
        CheckpointError: its tower is not what its config says.
    """
    source = Source.open(directory)
    tower = LazyVision(source)
    if not tower.is_there:
        return NoPictures(_BLIND.format(path=directory))
    ids = [_id(source.raw, name) for name in ("boi", "image", "eoi")]
    if not all(0 <= token < source.config.vocab_size for token in ids):
        return NoPictures(f"{directory}/config.json names no tokens of its vocabulary for pictures")
    return Pictures(tower.config, (ids[0], ids[1], ids[2]), default_image_tokens(directory))


def request_text(content: Sequence[Mapping[str, Any]]) -> str:
    """What tells contents with pictures apart, wherever their files lie: texts, and what the files hold.

    Raises:
        ImageError: a file cannot be read.
    """
    said = []
    for part in content:
        if part.get("type") != "image":
            said.append(str(part.get("text") or part.get("image_url")))
            continue
        path = str(part["image"])
        said.append(hashlib.sha256(read_bytes(path, Limits(), path)).hexdigest())
    return "\n".join(said)


def _id(raw: Mapping[str, Any], name: str) -> int:
    found = raw.get(f"{name}_token_id")
    return found if isinstance(found, int) else -1
