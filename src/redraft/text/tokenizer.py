"""A checkpoint's tokenizer, with what the engine needs to know of its special tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Encoding
from tokenizers import Tokenizer as _Tokenizer

from redraft.core.errors import CheckpointError, PromptError

# Ends of a turn, by token text: some re-saved configs keep only one of their ids.
END_OF_TURN = ("<eos>", "<turn|>", "<|tool_response>")


class Tokenizer:
    """Text to token ids and back.

    Decoding goes from special token to special token, so that a decoder which strips or merges at its start does
    the same in every segment: decode(encode(text)) == text.
    """

    def __init__(self, backend: _Tokenizer, source: Path | None = None) -> None:
        """`source` is the file that it was read from."""
        self._backend = backend
        self.source = source
        self._special = {
            token_id: token.content for token_id, token in backend.get_added_tokens_decoder().items() if token.special
        }

    @classmethod
    def from_directory(cls, directory: Path) -> Tokenizer | None:
        """The directory's `tokenizer.json`, or None where there is none.

        Raises:
            CheckpointError: the file cannot be read.
        """
        path = Path(directory) / "tokenizer.json"
        if not path.exists():
            return None
        try:
            return cls(_Tokenizer.from_file(str(path)), path)
        except Exception as error:  # the library raises bare Exceptions
            raise CheckpointError(f"{path} cannot be read: {error}") from None

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._backend.get_vocab_size()

    @cached_property
    def num_ids(self) -> int:
        """One more than the largest id; vocabularies may have holes."""
        return max(self._backend.get_vocab().values(), default=-1) + 1

    def id_of(self, token: str) -> int | None:
        """The id of one token by its text, None when the vocabulary has no such token."""
        return self._backend.token_to_id(token)

    def end_of_turn_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end a turn."""
        ids = (self.id_of(token) for token in END_OF_TURN)
        return tuple(token_id for token_id in ids if token_id is not None)

    def encode(self, text: str) -> list[int]:
        """Token ids; special tokens are read where the text spells them, none is added."""
        return self._backend.encode(text, add_special_tokens=False).ids

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """The characters that special tokens begin with, letters and digits aside."""
        return frozenset(text[0] for text in self._special.values() if text and not text[0].isalnum())

    def encode_typed(self, text: str, shielded: str) -> list[int]:
        """Token ids of a text in which special tokens are read only where nobody typed them.

        Args:
            text: as it stands.
            shielded: the same, character by character, with stand-ins where someone's words could begin a
                special token.

        Raises:
            PromptError: someone's words spell a special token, and the vocabulary cannot write that as text.
        """
        whole = self._backend.encode(text, add_special_tokens=False)
        if text == shielded:
            return whole.ids
        meant = self._backend.encode(shielded, add_special_tokens=False)
        if self._marks(whole) == self._marks(meant):
            return whole.ids
        ids: list[int] = []
        behind = 0
        for token, (start, end) in self._marks(meant):
            ids += [*self._as_text(text[behind:start]), token]
            behind = end
        return ids + self._as_text(text[behind:])

    def _marks(self, encoding: Encoding) -> list[tuple[int, tuple[int, int]]]:
        """(special token, where it stands) of an encoded text."""
        found = zip(encoding.ids, encoding.offsets, strict=True)
        return [(token, span) for token, span in found if token in self._special]

    def _as_text(self, text: str) -> list[int]:
        ids = self._literal.encode(text, add_special_tokens=False).ids if text else []
        spelled = next((token for token in ids if token in self._special), None)
        if spelled is not None:
            raise PromptError(f"this tokenizer cannot write {self._special[spelled]!r} as text")
        return ids

    @cached_property
    def _literal(self) -> _Tokenizer:
        """The same vocabulary, for which special tokens are letters like others."""
        backend = _Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text, special tokens spelled out or left out."""
        parts: list[str] = []
        segment: list[int] = []
        for token_id in token_ids:
            special = self._special.get(token_id)
            if special is None:
                segment.append(token_id)
                continue
            parts += [self._segment(segment), "" if skip_special_tokens else special]
            segment = []
        return "".join((*parts, self._segment(segment)))

    def decode_many(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """`decode` of several rows that hold no special token but in their last place, which then reads as nothing."""
        return self._backend.decode_batch(rows, skip_special_tokens=True)

    def is_special(self, token_id: int) -> bool:
        """Whether the token is a marker and no text."""
        return token_id in self._special

    def text_of(self, token_id: int) -> str:
        """The token as the vocabulary spells it."""
        return self._backend.id_to_token(token_id) or ""

    def pieces(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> list[str]:
        """Each token's own text, with the space it stands for; for drawing, not for joining."""
        return [
            "" if skip_special_tokens and token_id in self._special else self._piece(token_id) for token_id in token_ids
        ]

    def _piece(self, token_id: int) -> str:
        token = self._special.get(token_id) or self._backend.id_to_token(token_id) or ""
        return token.replace("▁", " ")

    def _segment(self, token_ids: list[int]) -> str:
        return self._backend.decode(token_ids, skip_special_tokens=False) if token_ids else ""
