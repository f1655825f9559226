"""Shares and differences, against values worked out by hand and against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from redraft.eval.paired import bootstrapped, mcnemar, wilson


@pytest.mark.parametrize(
    ("lost", "won", "p"), [(0, 0, 1.0), (3, 3, 1.0), (0, 5, 2 / 32), (5, 0, 2 / 32), (1, 4, 12 / 32), (2, 5, 58 / 128)]
)
def test_the_exact_p_of_discordant_pairs(lost, won, p):
    assert mcnemar(lost, won) == pytest.approx(p)
    if lost + won:
        assert mcnemar(lost, won) == pytest.approx(stats.binomtest(won, lost + won).pvalue)


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 40), (20, 40), (31, 40), (40, 40), (1100, 1319)])
def test_a_share_s_interval(right, count):
    expected = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_difference_s_interval_is_the_same_each_time_and_as_wide_as_it_should_be():
    draw = np.random.default_rng(5)
    differences = draw.choice([-1.0, 0.0, 1.0], p=[0.05, 0.8, 0.15], size=400)
    mean, low, high = bootstrapped(differences)
    assert (mean, low, high) == bootstrapped(differences)
    half = 1.96 * differences.std() / 20
    assert mean == pytest.approx(differences.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.005)


def test_no_difference_has_no_width():
    assert bootstrapped([0.0] * 12) == (0, 0, 0)
