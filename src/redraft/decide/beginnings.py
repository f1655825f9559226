"""What a reply that begins with a text may be as tokens: its last one often goes on beyond the text's end.

`call:Play{` may be followed by `artist`, and the two be one token. So where the causal mode weighs how a reply begins,
the text's own tokens are but one way: after each of their beginnings, any token counts that goes on with what is left
of the text, and beyond it. Other ways to part the text itself, which no tokenizer makes, are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from redraft.core.checks import shown
from redraft.core.errors import QuestionError
from redraft.text.sorted_spellings import SortedSpellings, sorted_spellings
from redraft.text.vocabulary import Vocabulary

# Sequences of tokens for one text.
MOST_WAYS = 10_000


def ways_to_begin(vocabulary: Vocabulary, ids: Sequence[int], barred: Sequence[int]) -> list[tuple[int, ...]]:
    """The sequences of tokens that replies with this beginning may begin with; none begins another.

    Args:
        vocabulary: of the model.
        ids: the text as its tokenizer writes it.
        barred: tokens that end a reply.

    Raises:
        QuestionError: there are too many.
    """
    opens = vocabulary.opens.tolist()
    at_start = [True, *(bool(opens[token]) for token in ids[:-1])]
    spelled = [_by_token(vocabulary)[start].get(token) for start, token in zip(at_start, ids, strict=True)]
    found = {tuple(ids): None}
    for place, start in enumerate(at_start):
        rest = spelled[place:]
        if any(text is None for text in rest):
            continue
        tokens = _beginning_with(sorted_spellings(vocabulary)[int(start)], b"".join(text for text in rest if text))
        if len(found) + len(tokens) > MOST_WAYS:
            written = b"".join(text for text in rest if text).decode("utf-8", "replace")
            raise QuestionError("choices", f"hold {shown(written)}, which too many tokens begin with")
        found.update(((*ids[:place], token), None) for token in tokens if token not in barred)
    return list(found)


def _beginning_with(spellings: SortedSpellings, text: bytes) -> list[int]:
    """The tokens that begin with a text."""
    first, last = 0, len(spellings.texts)
    for end in range(1, len(text) + 1):
        first, last = spellings.beginning(text[:end], first, last)
    return spellings.tokens[first:last]


@functools.lru_cache(maxsize=2)
def _by_token(vocabulary: Vocabulary) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """What each token spells inside a text, and at the start of a segment or a line."""
    inside, at_start = sorted_spellings(vocabulary)
    return dict(zip(inside.tokens, inside.texts, strict=True)), dict(zip(at_start.tokens, at_start.texts, strict=True))
