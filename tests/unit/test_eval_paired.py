"""Two ways of answering the same rows."""

from __future__ import annotations

import pytest

from redraft.eval.paired import mcnemar


@pytest.mark.parametrize(
    ("lost", "won", "p"), [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 2 / 32), (5, 0, 2 / 32), (1, 4, 12 / 32), (2, 5, 58 / 128)]
)
def test_the_exact_p_of_discordant_pairs(lost, won, p):
    assert mcnemar(lost, won) == pytest.approx(p)
