"""Work in a thread of its own that ends with it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_passing(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread that is gone afterwards.

    OpenMP keeps a team of threads for every thread that has used it, for as long as that one lives. Where the teams
    come to more threads than cores, as when one thread loads a model and another runs it, each waits asleep for its
    work, and a small model's step takes 1.6 times as long. An interrupt ends the wait, not the work.

    Raises:
        BaseException: what `work` raises.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    thread = Thread(target=run, name="in-passing", daemon=True)
    thread.start()
    result = done.result()
    thread.join()
    return result
