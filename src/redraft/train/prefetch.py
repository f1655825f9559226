"""Batches made in other processes, ahead of the step that takes them: a GPU's steps are shorter than making a batch."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch

from redraft.core.errors import GenerationError
from redraft.train.batch import Batch
from redraft.train.data import Stream
from redraft.train.stopping import SIGNALS, Stop

# Batches that a process may be ahead within its epoch, about a megabyte each.
_AHEAD = 48
_PATIENCE_S = 1.0


class Prefetch:
    """The same batches as a stream's, of whose epochs each of n processes makes every n-th."""

    def __init__(self, open_stream: Callable[[], Stream], stream: Stream, first: int, stop: Stop) -> None:
        """Starts the processes.

        Args:
            open_stream: makes the stream again over there; picklable, since processes are spawned: those that are
                forked cannot have a GPU in use.
            stream: the stream here.
            first: the step to begin with.
            stop: ends the wait for a batch.
        """
        self._stop = stop
        self._per_epoch = stream.steps_per_epoch
        context, count = multiprocessing.get_context("spawn"), stream.recipe.workers
        self._queues = [context.Queue(_AHEAD) for _ in range(count)]
        self._processes = [
            context.Process(target=_make, args=(open_stream, rank, count, first, stream.recipe.steps, to), daemon=True)
            for rank, to in enumerate(self._queues)
        ]
        # Ctrl-C and `timeout` reach them too; the batches are wanted until the run has ended. What is blocked here is
        # blocked there from the first instruction on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            for process in self._processes:
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def batch(self, step: int) -> Batch:
        """The batch of this step; steps are asked for in order.

        Raises:
            GenerationError: the process that makes it has ended.
            Interrupted: the run shall end.
        """
        rank = step // self._per_epoch % len(self._queues)
        while True:
            try:
                made, arrays = self._queues[rank].get(timeout=_PATIENCE_S)
                break
            except queue.Empty:
                self._stop.check()
                if not self._processes[rank].is_alive():
                    raise GenerationError("a process that makes batches has ended; its error stands above") from None
        assert made == step, f"batch {made} came for step {step}"
        fields: dict[str, Any] = {
            name: torch.from_numpy(one) if isinstance(one, np.ndarray) else one for name, one in arrays.items()
        }
        return Batch(**fields)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.kill()
            process.join()


def _make(open_stream: Callable[[], Stream], rank: int, count: int, first: int, steps: int, to: Queue) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    stream = open_stream()
    for step in range(first, steps):
        if step // stream.steps_per_epoch % count == rank:
            # As arrays: tensors would travel as open files, one each.
            made = vars(stream.batch(step)).items()
            to.put((step, {name: one.numpy() if isinstance(one, torch.Tensor) else one for name, one in made}))


def _end_with_parent() -> None:
    # One that was killed has closed nothing, and a full queue would be waited for forever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
