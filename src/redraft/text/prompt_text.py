"""What a template has rendered, in which a text that someone typed stays a text, whatever it spells.

A template puts contents between its markers, and a tokenizer reads markers wherever they are spelled. So before
contents are rendered, each character that could begin a marker becomes a stand-in; what a tokenizer then finds, the
template has written. Afterwards the characters are put back, and where they spell a marker, they are encoded as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.core.errors import PromptError
from redraft.text.tokenizer import Tokenizer

# Code points that are no characters (Unicode, section 23.7): no text has reason to hold them.
STAND_INS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
# In characters, and how many tokens a cut between two pieces may make, far more than it does.
_PIECE = 2**16
_AT_A_CUT = 64
_STAND_IN = re.compile("[\ufdd0-\ufdef]")


@dataclass(frozen=True)
class Shield:
    """Stand-ins for the characters that begin a marker.

    Attributes:
        stand_in: by character.
    """

    stand_in: Mapping[str, str]

    @classmethod
    def against(cls, beginnings: Iterable[str], *values: Any) -> Shield:
        """A shield for markers that begin so, with stand-ins that none of the values holds.

        Raises:
            PromptError: they hold nearly all of them.
        """
        used = {found for value in values for text in _texts(value) for found in _STAND_IN.findall(text)}
        free = [stand_in for stand_in in STAND_INS if stand_in not in used]
        wanted = sorted(beginnings)
        if len(free) < len(wanted):
            raise PromptError("the messages hold code points that are no characters")
        return cls(dict(zip(wanted, free, strict=False)))

    def over(self, value: Any) -> Any:
        """The value with every text in it shielded, keys too."""
        if isinstance(value, str):
            return value.translate(self._table)
        if isinstance(value, Mapping):
            return {self.over(key): self.over(item) for key, item in value.items()}
        return [self.over(item) for item in value] if isinstance(value, list | tuple) else value

    @property
    def _table(self) -> dict[int, str]:
        return {ord(character): stand_in for character, stand_in in self.stand_in.items()}


@dataclass(frozen=True)
class PromptText:
    """A rendered text.

    Attributes:
        shielded: with stand-ins.
        shield: which those are.
    """

    shielded: str
    shield: Shield

    @property
    def text(self) -> str:
        """As people read it."""
        return self.shielded.translate({ord(s): character for character, s in self.shield.stand_in.items()})

    def after(self, before: PromptText) -> PromptText | None:
        """What follows an earlier text; None where this one does not begin with it."""
        mine, earlier = self.text, before.text
        return PromptText(self.shielded[len(earlier) :], self.shield) if mine.startswith(earlier) else None

    def with_each(self, marker: str, texts: Sequence[str]) -> PromptText:
        """Other texts in the place of a marker that the template has written, one for each time.

        Raises:
            PromptError: it was written more or less often.
        """
        first, *rest = self.shielded.split(marker)
        if len(rest) != len(texts):
            raise PromptError(f"the chat template makes room for {len(rest)} pictures, the messages hold {len(texts)}")
        return PromptText(first + "".join(a + b for a, b in zip(texts, rest, strict=True)), self.shield)

    def more_than(self, most: int, tokenizer: Tokenizer) -> int | None:
        """A number of tokens above `most` that it has at least; None where it may have fewer.

        Counted in pieces: the ids of megabytes at once are gigabytes, and a process that makes them does nothing else.
        """
        if len(self.shielded) <= _PIECE:
            return None
        text, count = self.text, 0
        for start in range(0, len(text), _PIECE):
            piece = slice(start, start + _PIECE)
            count += len(tokenizer.encode_typed(text[piece], self.shielded[piece])) - _AT_A_CUT
            if count > most:
                return count
        return None

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        """Token ids: markers of the template as special tokens, everything else as text.

        Raises:
            PromptError: someone's text spells a marker, and the tokenizer cannot write that as text.
        """
        return tokenizer.encode_typed(self.text, self.shielded)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
