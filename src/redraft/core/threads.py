"""How threads share the cores: work in a thread that ends with it, and how long one waits awake."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

from redraft.core.checks import integer, shown
from redraft.core.errors import OptionError

T = TypeVar("T")

# Rounds that a thread of GNU's OpenMP waits awake for its next work: some 15 microseconds, which is more than lies
# between two operators. By itself it waits 300,000, and keeps a core from whoever else wants it.
_ROUNDS = "5000"
# More threads a core than this are of no use to anybody, and torch ends with a crash where the system has no more.
_A_CORE, _LEAST_MOST = 4, 16


def spin_briefly() -> None:
    """Makes this process share its cores, and its children with it. It must come before torch, and yields to what the
    environment says.

    On two cores beside two other processes, a small model's step took 694 ms, with this 313; alone, 80 and 68.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _ROUNDS)


def checked(count: object, what: str) -> int:
    """A number of threads or of processes that a machine can start.

    Args:
        count: how many are wanted.
        what: they are called.

    Raises:
        OptionError: fewer than one, or so many that the process would break.
    """
    cores = os.cpu_count() or 1
    most = max(_LEAST_MOST, _A_CORE * cores)
    number = integer(count)
    if number is None or not 1 <= number <= most:
        raise OptionError(f"{what} must be from 1 to {most} on {cores} cores, got {shown(count)}")
    return number


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
