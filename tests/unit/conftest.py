"""What several files of unit tests ask for."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def one_thread():
    """Waking threads for inputs this small takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
