"""What an engine sees with: pictures of messages brought to their size, and the tower that reads them.

Both are kept for a while: a conversation shows its pictures again with each turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from redraft.checkpoint.vision import LazyVision, default_image_tokens
from redraft.core.errors import ContextLengthError, ImageError, PromptError
from redraft.core.options import GenerationOptions
from redraft.engine.kept import Kept
from redraft.engine.prompt_images import PromptImage
from redraft.model.config import ModelConfig
from redraft.model.images import check_room, with_room
from redraft.text.image_parts import ImagePart, Shown
from redraft.text.prompt_text import PromptText
from redraft.text.video_parts import VideoPart
from redraft.vision.files import FORMATS, WEB_FORMATS, Limits, read_bytes
from redraft.vision.patches import brought_to_size, cut
from redraft.vision.picture import picture_of
from redraft.vision.video import KINDS, WEB_KINDS, WEB_LIMITS, Plan, frames_of, planned

# Of soft tokens: forty pictures of 280 at the released width in 16 bits. Of pixels at their size: twenty of those.
SOFT_BYTES, PIXEL_BYTES = 64 * 2**20, 32 * 2**20
# What a template writes for a picture or a video.
MARKER = "<|image|>"
_NO_TOWER = "this checkpoint holds no vision tower: load one in safetensors form, or send text only"
_OFF = "this engine was loaded with vision='off': load it without, or send text only"


class Laid(NamedTuple):
    """A prompt's ids, and the pictures in them."""

    ids: list[int]
    images: tuple[PromptImage, ...]


@dataclass(frozen=True, kw_only=True)
class _Sized:
    pixels: UInt8[np.ndarray, "3 H W"]
    digest: bytes


class Sight:
    """Pictures, as one model takes them."""

    def __init__(self, tower: LazyVision | None, config: ModelConfig, directory: Path) -> None:
        """`tower` is None where the engine was told not to see."""
        self._tower, self._directory = tower, directory
        self._config = config
        self._soft = Kept[Tensor](SOFT_BYTES, lambda soft: soft.nbytes)
        self._films = Kept[list[_Sized]](PIXEL_BYTES, lambda frames: sum(one.pixels.nbytes for one in frames))
        self._sized = Kept[_Sized](PIXEL_BYTES, lambda sized: sized.pixels.nbytes)
        # None of them names a token where the config does not.
        self._ids = [config.raw.get(f"{name}_token_id", -1) for name in ("boi", "image", "eoi")]

    @property
    def sees(self) -> bool:
        """Whether a picture can be looked at."""
        return self.blind is None

    @cached_property
    def blind(self) -> str | None:
        """Why none can; None where one can."""
        if self._tower is None:
            return _OFF
        if not self._tower.is_there:
            return _NO_TOWER
        if not all(isinstance(token, int) and 0 <= token < self._config.vocab_size for token in self._ids):
            return "this checkpoint's config.json names no tokens of its vocabulary for pictures: send text only"
        return None

    @cached_property
    def budget(self) -> int:
        """How many tokens a picture may become where nobody says."""
        return default_image_tokens(self._directory)

    def check_sees(self, parts: Rows[Shown]) -> None:
        """Refuses pictures where none can be looked at.

        Raises:
            ImageError: says why.
        """
        if parts and self.blind is not None:
            raise ImageError(self.blind, parts[0].where)

    def check_ids(self, ids: list[int]) -> None:
        """Refuses ids with places for pictures that nobody gave.

        Raises:
            PromptError: how many.
        """
        if self.sees and (count := ids.count(self._ids[1])):
            raise PromptError(f"the prompt has {count} placeholders of pictures, and no picture: give messages")

    def laid_out(self, ids: list[int], parts: Rows[ImagePart], options: GenerationOptions, max_context: int) -> Laid:
        """A rendered prompt with room for its pictures.

        Args:
            ids: with one placeholder for each picture.
            parts: the pictures, in their order.
            options: with every default filled in.
            max_context: tokens that a prompt may have.

        Raises:
            ImageError: one cannot be read.
            ContextLengthError: they do not fit.
        """
        check_room(ids, len(parts), self._ids[1])
        budgets = [part.image_tokens or options.image_tokens or self.budget for part in parts]
        # Any picture fills half of its budget: what cannot fit is never decoded.
        least = sum(-(-budget // 2) for budget in budgets)
        if len(ids) + least > max_context:
            raise ContextLengthError(len(ids) + least, max_context, at_least=True, image_tokens=least)
        sized = [self._picture(part, budget) for part, budget in zip(parts, budgets, strict=True)]
        counts = [picture.pixels.shape[1] * picture.pixels.shape[2] // self._unit**2 for picture in sized]
        found, starts = with_room(ids, counts, *self._ids)
        images = [
            PromptImage(
                start=start,
                tokens=count,
                pixels=picture.pixels,
                digest=picture.digest,
                reading=options.image_attention,
            )
            for start, count, picture in zip(starts, counts, sized, strict=True)
        ]
        if len(found) > max_context:
            raise ContextLengthError(len(found), max_context, image_tokens=sum(image.tokens for image in images))
        return Laid(found, tuple(images))

    def with_frames(self, text: PromptText, parts: Rows[Shown], max_context: int) -> tuple[PromptText, list[ImagePart]]:
        """A rendered prompt and its pictures, where each video has become frames, with the time of each before it.

        Raises:
            ImageError: a video cannot be read.
            ContextLengthError: as many frames cannot fit; none has been decoded then.

        Source: transformers `Gemma4Processor.replace_video_token`.
        """
        if not any(isinstance(part, VideoPart) for part in parts):
            return text, [part for part in parts if isinstance(part, ImagePart)]
        plans = [plan_of(part) if isinstance(part, VideoPart) else None for part in parts]
        least = sum(
            len(plan.indices) * -(-part.image_tokens // 2)
            for part, plan in zip(parts, plans, strict=True)
            if plan is not None and part.image_tokens is not None
        )
        if least > max_context:
            raise ContextLengthError(least, max_context, at_least=True, image_tokens=least)
        pictures: list[ImagePart] = []
        for part, plan in zip(parts, plans, strict=True):
            pictures += [part] if isinstance(part, ImagePart) else self._frames(part, plan)
        texts = [MARKER if plan is None else " ".join(f"{stamp} {MARKER}" for stamp in plan.stamps) for plan in plans]
        return text.with_each(MARKER, texts), pictures

    def _frames(self, part: VideoPart, plan: Plan | None) -> list[ImagePart]:
        """Of a video, each brought to its size before the next is decoded."""
        assert plan is not None
        budget, where = part.image_tokens, name_of(part)
        key = hashlib.sha256(plan.data).digest(), plan.indices, budget
        sized = self._films.get(
            key, lambda: [self._brought(frame, budget, FORMATS, where) for frame in frames_of(plan, where=where)]
        )
        return [
            ImagePart(source=one, where=f"{where}, {stamp}", from_web=part.from_web, image_tokens=budget)
            for one, stamp in zip(sized, plan.stamps, strict=True)
        ]

    def sized(self, part: ImagePart, options: GenerationOptions) -> tuple[object, int]:
        """(a picture at its size, which a part may hold in the place of what was given; its budget).

        Raises:
            ImageError: it cannot be read.
        """
        budget = part.image_tokens or options.image_tokens or self.budget
        return self._picture(part, budget), budget

    def soft_tokens(self, image: PromptImage) -> Float[Tensor, "n D"]:
        """What the tower makes of a picture; the first one loads it.

        Raises:
            CheckpointError: it cannot be loaded.
        """
        assert self._tower is not None
        vision = self._tower()
        with torch.no_grad():
            return self._soft.get(image.digest, lambda: vision(cut(image.pixels, vision.config)))

    @cached_property
    def _unit(self) -> int:
        assert self._tower is not None
        return self._tower.config.unit

    def _picture(self, part: ImagePart, budget: int) -> _Sized:
        """A picture at its size. Files are known by their bytes, and decoded once."""
        source, where, limits = part.source, part.where, Limits()
        if isinstance(source, _Sized):
            return source
        if isinstance(source, str | Path):
            where = str(source)
            source = read_bytes(source, limits, where)
        formats = WEB_FORMATS if part.from_web else FORMATS
        if not isinstance(source, bytes):
            return self._brought(source, budget, formats, where)
        key = hashlib.sha256(source).digest(), formats, budget
        return self._sized.get(key, lambda: self._brought(source, budget, formats, where))

    def _brought(self, source: object, budget: int, formats: tuple[str, ...], where: str) -> _Sized:
        assert self._tower is not None
        picture = picture_of(source, formats=formats, where=where)
        try:
            pixels = brought_to_size(picture.pixels, self._tower.config, budget)
        except ImageError as error:
            raise ImageError(error.reason, where) from None
        digest = hashlib.sha256(picture.digest + budget.to_bytes(4)).digest()
        return _Sized(pixels=np.ascontiguousarray(pixels), digest=digest)


def plan_of(part: VideoPart) -> Plan:
    """Which frames of a video are looked at.

    Raises:
        ImageError: it cannot be read.
    """
    kinds, limits = (WEB_KINDS, WEB_LIMITS) if part.from_web else (KINDS, None)
    return planned(part.source, part.frames, kinds=kinds, limits=limits, where=part.where)


def name_of(part: VideoPart) -> str:
    """What errors call a video."""
    return str(part.source) if isinstance(part.source, str | Path) else part.where
