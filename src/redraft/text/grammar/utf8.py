"""Ranges of code points as sequences of byte ranges in UTF-8."""

from __future__ import annotations

from collections.abc import Iterator

Bytes = tuple[tuple[int, int], ...]
# Code points that take 1, 2, 3 and 4 bytes end here.
_LAST = (0x7F, 0x7FF, 0xFFFF, 0x10FFFF)


def sequences(first: int, last: int) -> Iterator[Bytes]:
    """Byte ranges, one for each place, that spell exactly the code points from `first` to `last`."""
    for end in _LAST:
        if first <= end:
            yield from _of_one_length(first, min(last, end))
            first = end + 1
        if first > last:
            return


def _of_one_length(first: int, last: int) -> Iterator[Bytes]:
    if first > last:
        return
    one, other = chr(first).encode("utf-8", "surrogatepass"), chr(last).encode("utf-8", "surrogatepass")
    yield from _between(one, other)


def _between(one: bytes, other: bytes) -> Iterator[Bytes]:
    """Texts of equal length from `one` to `other`, whose continuation bytes run over 0x80 to 0xBF."""
    if len(one) == 1:
        yield ((one[0], other[0]),)
        return
    rest, least, most = len(one) - 1, b"\x80" * (len(one) - 1), b"\xbf" * (len(one) - 1)
    if one[0] == other[0]:
        yield from (((one[0], one[0]), *tail) for tail in _between(one[1:], other[1:]))
        return
    begin, end = one[0], other[0]
    if one[1:] != least:
        yield from (((begin, begin), *tail) for tail in _between(one[1:], most))
        begin += 1
    if other[1:] != most:
        end -= 1
    if begin <= end:
        yield ((begin, end), *(((0x80, 0xBF),) * rest))
    if other[1:] != most:
        yield from (((other[0], other[0]), *tail) for tail in _between(least, other[1:]))
