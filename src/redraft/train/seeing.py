"""Soft tokens for the pictures of a batch: of a tower that learns with the model, or of one that stays as it is."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from redraft.checkpoint.vision import load_vision
from redraft.core.errors import RecipeError
from redraft.model.images import Placed
from redraft.model.model import DiffusionGemma
from redraft.train.batch import Batch
from redraft.train.pictures import NoPictures, Pictures, RowPicture
from redraft.train.recipe import Recipe
from redraft.train.soft_cache import SoftCache
from redraft.vision.files import FORMATS
from redraft.vision.patches import brought_to_size, cut
from redraft.vision.picture import picture_of
from redraft.vision.tower import Vision

# Of pictures at their size, which a tower that learns sees again and again: 150 of 280 tokens at the released patches.
PIXEL_BYTES = 256 * 2**20


class Eyes:
    """What a run sees with.

    Attributes:
        tower, learning: the one that stays as it is, or the one that learns with the model.
        digest: digits of the weights that it began with.
    """

    def __init__(self, recipe: Recipe, pictures: Pictures, directory: Path, device: torch.device) -> None:
        """Reads the tower of the checkpoint that a run begins with.

        Raises:
            CheckpointError: it cannot be read.
        """
        self.pictures = pictures
        learns = recipe.vision == "train"
        dtype = torch.float32 if learns else getattr(torch, recipe.precision)
        vision = load_vision(directory, device, dtype)
        self.digest = tower_digits(vision)
        self.tower: Vision | None = None if learns else vision
        self.learning: Vision | None = vision.requires_grad_(True) if learns else None
        folder, most = recipe.output / "soft_tokens", int(recipe.soft_tokens_gib * 2**30)
        self.cache = None if learns else SoftCache(folder, most, self.digest)
        self._pixels: OrderedDict[tuple[bytes, int], UInt8[np.ndarray, "3 H W"]] = OrderedDict()
        self._nbytes = 0

    def shown(self, batch: Batch, model: DiffusionGemma) -> Batch:
        """The batch with soft tokens of its pictures, made by the model's own tower where it learns.

        Raises:
            ImageError: a picture has gone or changed.
        """
        if batch.pictures is None:
            return batch
        made: dict[tuple[bytes, int], Tensor] = {}
        placed = []
        for row in batch.pictures:
            for picture in row:
                if (key := (picture.digest, picture.budget)) not in made:
                    made[key] = self._soft(picture, model)
            placed.append([Placed(start=one.start, soft=made[one.digest, one.budget]) for one in row])
        return replace(batch, placed=placed)

    def _soft(self, picture: RowPicture, model: DiffusionGemma) -> Float[Tensor, "n D"]:
        if self.cache is None:
            assert model.tower is not None, "whoever trains a tower puts it into the model"
            return model.tower(cut(self._sized(picture), self.pictures.config))
        return self.cache.get(picture.digest, picture.budget, lambda: self._frozen(picture))

    @torch.no_grad()
    def _frozen(self, picture: RowPicture) -> Float[Tensor, "n D"]:
        assert self.tower is not None
        return self.tower(cut(self._brought(picture), self.pictures.config))

    def _sized(self, picture: RowPicture) -> UInt8[np.ndarray, "3 H W"]:
        key = picture.digest, picture.budget
        if key not in self._pixels:
            self._pixels[key] = self._brought(picture)
            self._nbytes += self._pixels[key].nbytes
            while self._nbytes > PIXEL_BYTES and len(self._pixels) > 1:
                self._nbytes -= self._pixels.popitem(last=False)[1].nbytes
        self._pixels.move_to_end(key)
        return self._pixels[key]

    def _brought(self, picture: RowPicture) -> UInt8[np.ndarray, "3 H W"]:
        where = picture.source if isinstance(picture.source, str) else ""
        seen = picture_of(picture.content(), formats=FORMATS, where=where)
        return np.ascontiguousarray(brought_to_size(seen.pixels, self.pictures.config, picture.budget))


def open_eyes(recipe: Recipe, pictures: Pictures | NoPictures, directory: Path, model: DiffusionGemma) -> Eyes | None:
    """What a run sees with, once its rows have been measured; None where they hold no picture. A tower that learns is
    put into the model.

    Raises:
        RecipeError: it shall learn from nothing.
        CheckpointError: it cannot be read.
    """
    if isinstance(pictures, NoPictures) or pictures.digest is None:
        if recipe.vision == "train":
            raise RecipeError("vision: train needs rows with pictures, there is none: set vision=frozen")
        return None
    eyes = Eyes(recipe, pictures, directory, model.device)
    model.tower = eyes.learning
    return eyes


def tower_digits(vision: Vision) -> str:
    """Digits of all weights of a tower, and of its shape and dtype."""
    digest = hashlib.sha256(repr(vision.config).encode())
    for name, tensor in sorted(vision.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
