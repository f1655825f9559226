"""Whether what a page shows is what comes. Times, speeds and ports are left out; three dots stand for anything."""

from __future__ import annotations

import difflib
import re

# Of a figure with a point, which the last bits of another CPU's products may move.
TOLERANCE = 0.05
_MASKS = (
    # Times, speeds and sizes of memory: 0.34 s, 30 tokens/s, 1.2 GB/s, 12 ms.
    (re.compile(r"\d[\d,.]*(?= ?(?:s|ms|min|tokens/s|GB/s|GOPS|GFLOP/s|MiB)\b)"), "#"),
    # The same in JSON and in tables of names and values.
    (re.compile(r'(?<=_s": )[-\d.e]+|(?<=_second": )[-\d.e]+|(?<=_per_request": )[-\d.e]+'), "#"),
    (re.compile(r"((?:_s|_per_s|_per_second|_per_request)\s+)[-\d.]+"), r"\1#"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:#"),
    (re.compile(r"(?<=key=)[\w-]+(?:\.\.\.)?"), "#"),
)
_NUMBER = re.compile(r"\d+\.\d+")


def difference(shown: str, came: str) -> str | None:
    """None if `came` is what `shown` says, else how they differ."""
    wanted, found = _lines(shown), _lines(came)
    if _fits(wanted, found):
        return None
    return "\n".join(difflib.unified_diff(wanted, found, "shown", "came", lineterm=""))


def _lines(text: str) -> list[str]:
    for mask, to in _MASKS:
        text = mask.sub(to, text)
    return [re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines()]


def _fits(wanted: list[str], found: list[str]) -> bool:
    if not wanted:
        return not found
    if wanted[0] == "...":
        return any(_fits(wanted[1:], found[start:]) for start in range(len(found) + 1))
    return bool(found) and _same(wanted[0], found[0]) and _fits(wanted[1:], found[1:])


def _same(wanted: str, found: str) -> bool:
    if wanted == found:
        return True
    if "..." in wanted:
        # Spaces beside the dots are for the eye.
        return re.fullmatch(".*".join(map(re.escape, re.split(r" ?\.\.\. ?", wanted))), found) is not None
    if _NUMBER.sub("#", wanted) != _NUMBER.sub("#", found):
        return False
    pairs = zip(_NUMBER.findall(wanted), _NUMBER.findall(found), strict=True)
    return all(abs(float(one) - float(other)) <= TOLERANCE * abs(float(one)) + 1e-9 for one, other in pairs)
