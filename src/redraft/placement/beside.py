"""Work beside other work on one GPU: a branch of a captured step, or a second stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Beside:
    """A second stream of a CUDA or ROCm device; elsewhere work is done where it stands.

    What the branch reads must be kept until `join`: its memory would be given to other tensors of the main stream. What
    the branch makes goes back to the branch, which waits for the main stream before it begins again.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self.open()

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Work that begins when the main stream has come here."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield

    def open(self) -> None:
        """Branches are beside the main stream again."""
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def close(self) -> bool:
        """Branches are done where they stand from here on; whether they were not before."""
        was_open, self._stream = self._stream is not None, None
        return was_open

    def join(self) -> None:
        """The main stream goes on when the branch is done."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
