"""Puts `tests/` on the import path, for what the rooms of the suite share, and leaves long runs to `make test-full`."""

from __future__ import annotations

import os
import signal

import pytest

# A shell's background jobs ignore Ctrl-C, and what `nohup` starts a terminal that goes; so would the processes that
# tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def one_thread():
    """Waking threads for inputs this small takes longer than the work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("REDRAFT_FULL_TESTS"):
        return
    long = [item for item in items if item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in set(long)]
