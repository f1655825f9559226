"""What a file of conversations holds for a model: counted, measured, and shown as it would be learned."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from redraft.checkpoint.locate import locate
from redraft.core.errors import DataError
from redraft.model.config import ModelConfig
from redraft.text.conversations import Conversation, read_conversations
from redraft.text.tokenizer import Tokenizer
from redraft.train.bars import checking_bar
from redraft.train.data import open_encoder
from redraft.train.examples import Encoder
from redraft.train.rows import Row, rows_of

SAMPLES = 3
# Rows of the report that are named by their lines.
_NAMED = 20
# A picture's placeholders, of which there are hundreds.
_PLACES = re.compile(r"(<\|image\|>)(?: ?<\|image\|>)+")


@dataclass(frozen=True)
class Piece:
    """A run of a row's text.

    Attributes:
        text: markers spelled out.
        learned: whether the model learns to write it.
    """

    text: str
    learned: bool


@dataclass
class Checked:
    """What was found in a file.

    Attributes:
        rows: of the file, bad ones among them.
        bad: what is wrong with rows that cannot be used.
        turns: how many messages there are, by who speaks.
        duplicates: lines of rows that say what an earlier one said, with that one's line.
        replies, canvases: that are learned, and what they take.
        tokens: of all conversations, each counted once for every row that it takes.
        learned_tokens: of replies.
        longest: tokens of the longest conversation.
        several: lines of conversations that take several rows, because the chat template rewrites what is past.
        cut, beyond: replies that `max_length` would cut, and those that would be left out.
        left_out: lines of conversations that would be left out whole.
        max_length, canvas_length: that it was measured with.
        samples: the first rows, as they would be learned, by their lines.
    """

    max_length: int
    canvas_length: int
    rows: int = 0
    bad: list[DataError] = field(default_factory=list)
    turns: Counter[str] = field(default_factory=Counter)
    duplicates: dict[int, int] = field(default_factory=dict)
    replies: int = 0
    canvases: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    longest: int = 0
    several: list[int] = field(default_factory=list)
    cut: int = 0
    beyond: int = 0
    left_out: list[int] = field(default_factory=list)
    samples: dict[int, list[Piece]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; long lists of lines are cut, their counts are whole."""
        fields = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return fields | {
            "turns": dict(self.turns),
            "bad": len(self.bad),
            "bad_rows": [{"line": error.line, "reason": error.reason} for error in self.bad[:_NAMED]],
            "duplicates": len(self.duplicates),
            "duplicate_lines": dict(list(self.duplicates.items())[:_NAMED]),
            "several_rows": len(self.several),
            "several_lines": self.several[:_NAMED],
            "left_out": len(self.left_out),
            "left_out_lines": self.left_out[:_NAMED],
            "samples": [
                {"line": line, "pieces": [vars(piece) for piece in pieces]} for line, pieces in self.samples.items()
            ],
        }


def check_data(path: Path, model: str, max_length: int | None = None) -> Checked:
    """Reads, renders and measures a whole file.

    Args:
        path: of the file.
        model: whose tokenizer, chat template and canvases count.
        max_length: of a row in tokens; None takes what the model can read, at most `DEFAULT_LENGTH`.

    Raises:
        DataError: the file as a whole cannot be read. Bad rows are part of what is found.
        ModelNotFoundError, CheckpointError: of the model.
    """
    directory = locate(model)
    config = ModelConfig.from_directory(directory)
    found = Checked(max_length or default_length(config), config.canvas_length)
    encoder = open_encoder(directory, found.max_length)
    conversations = read_conversations(path, found.bad)
    found.rows = len(conversations) + len(found.bad)
    seen: dict[str, int] = {}
    with checking_bar(len(conversations)) as report:
        for number, conversation in enumerate(conversations, start=1):
            try:
                _measure(conversation, str(path), encoder, found)
            except DataError as error:
                found.bad.append(error)
                continue
            finally:
                report(number)
            said = json.dumps([conversation.messages, conversation.tools], sort_keys=True)
            if (first := seen.setdefault(said, conversation.line)) != conversation.line:
                found.duplicates[conversation.line] = first
    found.bad.sort(key=lambda error: error.line)
    return found


# What a row may have where nobody says: beyond it a step of a batch takes more than most machines have.
DEFAULT_LENGTH = 4096


def default_length(config: ModelConfig) -> int:
    """Of a row, in tokens, where nobody says."""
    return min(config.max_position_embeddings, DEFAULT_LENGTH)


def _measure(conversation: Conversation, path: str, encoder: Encoder, found: Checked) -> None:
    whole = encoder.whole(conversation, path)
    rows = rows_of(whole)
    fitted = [row for row in (row.fitted(found.max_length) for row in rows) if row is not None]
    replies = [reply for row in fitted for reply in row.replies]
    found.turns.update(message["role"] for message in conversation.messages)
    found.tokens += sum(len(row.ids) for row in rows)
    found.longest = max(found.longest, *(len(row.ids) for row in rows))
    found.replies += len(replies)
    found.canvases += sum(len(reply.canvases(found.canvas_length)) for reply in replies)
    found.learned_tokens += sum(len(reply.ids) for reply in replies)
    found.cut += sum(not reply.complete for reply in replies)
    if len(rows) > 1:
        found.several.append(conversation.line)
    if not fitted:
        found.left_out.append(conversation.line)
    else:
        found.beyond += len(whole) - len(replies)
    if len(found.samples) < SAMPLES and fitted:
        found.samples[conversation.line] = [piece for row in fitted for piece in pieces_of(row, encoder.tokenizer)]


def pieces_of(row: Row, tokenizer: Tokenizer) -> list[Piece]:
    """A row's text in runs that are learned and runs that are not."""
    pieces, at = [], 0
    for reply in row.replies:
        # The row may hold another token in the place of a reply's end.
        held = min(len(reply.ids), len(row.ids) - reply.start)
        end = reply.start + held - (row.ids[reply.start + held - 1] != reply.ids[held - 1])
        pieces += [Piece(tokenizer.decode(row.ids[at : reply.start]), learned=False)]
        pieces += [Piece(tokenizer.decode(reply.ids), learned=True)]
        at = end
    rest = tokenizer.decode(row.ids[at:])
    pieces.append(Piece(rest, learned=False))
    return [replace(piece, text=_PLACES.sub(_counted, piece.text)) for piece in pieces if piece.text]


def _counted(run: re.Match[str]) -> str:
    return f"{run[1]}...{run[0].count(run[1])} times"
