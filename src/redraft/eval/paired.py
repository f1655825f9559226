"""Shares and differences, with what is known of them from so many rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

LEVEL, RESAMPLES = 0.95, 10_000
# The standard normal's quantile at 97.5 %.
_Z = 1.959963984540054


def mcnemar(lost: int, won: int) -> float:
    """The two-sided exact p of so many rows that one way alone has right, and so many that the other has.

    Source: McNemar 1947, with the binomial distribution in place of its limit.
    """
    count, least = lost + won, min(lost, won)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(least + 1)) / 2**count)


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` > 0 rows, of which `right` hold.

    Source: Wilson 1927.
    """
    share, spread = right / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrapped(differences: Sequence[float]) -> tuple[float, float, float]:
    """(mean, and its 95 % bootstrap interval over rows); the same for the same differences."""
    values = np.asarray(differences, dtype=float)
    draw = np.random.default_rng(0)
    # A draw at a time: all of them at once would be 10,000 times the rows.
    means = [values[draw.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values.mean()), float(low), float(high)
