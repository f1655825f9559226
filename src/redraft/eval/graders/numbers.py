"""The number that a reply ends with, as GSM8K's answers are graded.

Source: Cobbe et al. 2021, arXiv 2110.14168 (the mark), lm-evaluation-harness's `gsm8k` (the two ways of finding it).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

MARK = "####"
# A chat model may set it in bold; a sign may stand on either side of a dollar's.
_MARKED = re.compile(rf"{MARK}[\s*_]*([-\u2212]?\$?[-\u2212]?[0-9.,]+)")
_ANYWHERE = re.compile(r"(?:(?<![0-9])[-\u2212])?\$?(?:(?<=\$)[-\u2212])?\.?[0-9](?:[0-9.,]*[0-9])?")


def marked(text: str) -> Decimal | None:
    """The number behind the last mark that has one; None where there is none."""
    return _last_of(_MARKED, text)


def last(text: str) -> Decimal | None:
    """The last number of a text, wherever it stands; None where there is none."""
    return _last_of(_ANYWHERE, text)


def _last_of(pattern: re.Pattern[str], text: str) -> Decimal | None:
    numbers = (value_of(found) for found in reversed(pattern.findall(text)))
    return next((number for number in numbers if number is not None), None)


def value_of(written: str) -> Decimal | None:
    """What a number means that may have a dollar sign, commas between thousands and a full stop behind it."""
    digits = written.replace(",", "").replace("$", "").replace("\u2212", "-").removesuffix(".")
    try:
        return Decimal(digits)
    except InvalidOperation:
        return None
