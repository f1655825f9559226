"""Two ways of answering the same rows, told apart."""

from __future__ import annotations

import math


def mcnemar(lost: int, won: int) -> float:
    """The two-sided exact p of so many rows that one way alone has right, and so many that the other has.

    Source: McNemar 1947, with the binomial distribution in place of its limit.
    """
    count, least = lost + won, min(lost, won)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(least + 1)) / 2**count)
