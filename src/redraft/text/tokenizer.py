"""A checkpoint's tokenizer, with what the engine needs to know of its special tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer

from redraft.core.errors import CheckpointError

# Ends of a turn, by token text: some re-saved configs keep only one of their ids.
END_OF_TURN = ("<eos>", "<turn|>", "<|tool_response>")


class Tokenizer:
    """Text to token ids and back.

    Decoding goes from special token to special token, so that a decoder which strips or merges at its start does
    the same in every segment: decode(encode(text)) == text.
    """

    def __init__(self, backend: _Tokenizer) -> None:
        self._backend = backend
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
            return cls(_Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exceptions
            raise CheckpointError(f"{path} cannot be read: {error}") from None

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._backend.get_vocab_size()

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

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Each token's own text, with the space it stands for; for drawing, not for joining."""
        return [self._piece(token_id) for token_id in token_ids]

    def _piece(self, token_id: int) -> str:
        token = self._special.get(token_id) or self._backend.id_to_token(token_id) or ""
        return token.replace("▁", " ")

    def _segment(self, token_ids: list[int]) -> str:
        return self._backend.decode(token_ids, skip_special_tokens=False) if token_ids else ""
