"""Soft tokens of a tower that stays as it is, on disk: each picture goes through it once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

# n soft tokens of one picture, D width of the text model


class SoftCache:
    """A folder with one file a picture, of one tower; what another has left is deleted.

    Once it is full, no more is written and what is not there is made each time: were old ones to leave, a run that goes
    through its data in turns would find nothing.
    """

    def __init__(self, folder: Path, most_bytes: int, tower: str) -> None:
        """
        Args:
            folder: made if missing.
            most_bytes: of its files; 0 keeps nothing.
            tower: digits of its weights and of how it computes.
        """
        self.folder, self.most_bytes = folder / tower, most_bytes
        for other in folder.iterdir() if folder.is_dir() else ():
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        if most_bytes:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.nbytes = sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def get(self, digest: bytes, budget: int, make: Callable[[], Float[Tensor, "n D"]]) -> Float[Tensor, "n D"]:
        """The soft tokens of a picture's file with a budget, on the host; made where they are not there."""
        name = hashlib.sha256(digest + budget.to_bytes(4, "big")).hexdigest()[:40]
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            try:
                return load_file(path)["soft"]
            except (OSError, SafetensorError, KeyError):
                # Cut off by a process that died: it is made again.
                self.nbytes -= path.stat().st_size
                path.unlink()
        made = make().cpu().contiguous()
        if self.nbytes + made.nbytes <= self.most_bytes:
            fresh = path.with_suffix(".part")
            save_file({"soft": made}, fresh)
            self.nbytes += fresh.stat().st_size
            os.replace(fresh, path)
        return made
