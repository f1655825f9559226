"""Work in a thread of its own."""

from __future__ import annotations

import threading

import pytest

from redraft.core.threads import in_passing


def test_the_result_comes_and_the_thread_goes() -> None:
    worked = in_passing(threading.current_thread)
    assert worked is not threading.current_thread()
    assert not worked.is_alive()


def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        in_passing(fail)
