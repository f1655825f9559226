"""Which size a picture is brought to: it fills its budget of soft tokens, up as well as down."""

from __future__ import annotations

import math

from redraft.core.checks import one_of_integers
from redraft.core.option_bounds import IMAGE_TOKENS as BUDGETS

DEFAULT_BUDGET = 280


def check_budget(image_tokens: object) -> int:
    """The most soft tokens that a picture may become.

    Raises:
        OptionError: not one of `BUDGETS`.
    """
    return one_of_integers("image_tokens", image_tokens, BUDGETS)


def grid_of(height: int, width: int, image_tokens: int, unit: int) -> tuple[int, int]:
    """(rows, columns) of soft tokens that a picture becomes, about in its own proportions; their product is at most
    `image_tokens`, and at least half of it.

    Args:
        height, width: of the picture, in pixels, at least 1.
        image_tokens: the budget.
        unit: side of what becomes one soft token, in pixels.

    Source: transformers `get_aspect_ratio_preserving_size`, in float64 and in its order of operations: in another
    order some sizes, such as 880 x 616, come out one row apart.
    """
    factor = math.sqrt(image_tokens * unit**2 / (height * width))
    rows, columns = math.floor(factor * height / unit), math.floor(factor * width / unit)
    if rows == 0:
        return 1, min(width // height, image_tokens)
    if columns == 0:
        return min(height // width, image_tokens), 1
    return rows, columns
