"""A conversation as one row of ids with all its replies in it, or as several where its template rewrites the past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from redraft.train.examples import Example
from redraft.train.pictures import RowPicture

Truncation = Literal["cut", "drop"]


@dataclass(frozen=True)
class Reply:
    """A reply that is learned.

    Attributes:
        start: where in its row it begins.
        ids: up to and with its end. The row may hold another token in the end's place: a call's result follows it.
        values: for each id, whether it stands inside an argument's value.
        complete: False where it was cut to fit, so that it has no real end.
    """

    start: int
    ids: list[int]
    values: list[bool]
    complete: bool = True

    def canvases(self, canvas_length: int) -> list[int]:
        """Where in the reply its canvases begin. The last one of a reply that was cut is left out if it is not full and
        another is there: nobody knows what its fill would be."""
        starts = list(range(0, len(self.ids), canvas_length))
        return starts[:-1] if not self.complete and len(starts) > 1 and len(self.ids) % canvas_length else starts


@dataclass(frozen=True)
class Row:
    """Ids as the causal mode reads them, with every reply of them that is learned, in order.

    Attributes:
        ids: of the conversation.
        replies: at least one.
        told: for each id, whether a tool has said it or a picture stands there: it is never learned.
        pictures: those that stand in it.
    """

    ids: list[int]
    replies: list[Reply]
    told: list[bool]
    pictures: tuple[RowPicture, ...] = ()

    def size(self, canvas_length: int) -> tuple[int, int]:
        """(canvases, ids)."""
        return sum(len(reply.canvases(canvas_length)) for reply in self.replies), len(self.ids)

    def fitted(self, most: int, truncation: Truncation = "cut") -> Row | None:
        """The row in at most so many ids; None where no reply is left.

        Args:
            most: ids.
            truncation: what becomes of a reply that reaches beyond: it is cut, or left out.
        """
        kept = []
        for reply in self.replies:
            room = most - reply.start
            if room >= len(reply.ids):
                kept.append(reply)
            elif room > 0 and truncation == "cut":
                kept.append(replace(reply, ids=reply.ids[:room], values=reply.values[:room], complete=False))
        if not kept:
            return None
        # Behind the last of them nothing is learned.
        end = min(most, kept[-1].start + len(kept[-1].ids))
        pictures = tuple(picture for picture in self.pictures if picture.end <= end)
        return replace(self, ids=self.ids[:end], replies=kept, told=self.told[:end], pictures=pictures)


def rows_of(examples: Sequence[Example]) -> list[Row]:
    """The rows that hold the examples of one conversation, as few as can.

    An example is part of a row if its prompt and reply stand there, id for id: then what it would see is what stands
    before. A template that drops old thoughts, or a tokenizer that joins what a turn's end parts, makes more rows.

    Args:
        examples: of one conversation, in the order of their turns.
    """
    rows: list[Row] = []
    for example in reversed(examples):
        prompt, start = example.prompt, len(example.prompt)
        reply = Reply(start, example.response, example.values, example.complete)
        # The reply's end need not be there.
        seen = [*prompt, *example.response[:-1]]
        home = next((row for row in rows if row.ids[: len(seen)] == seen and _same(row, example)), None)
        if home is None:
            told = [*(example.told or [False] * start), *[False] * len(example.response)]
            rows.append(Row([*prompt, *example.response], [reply], told, example.pictures))
        else:
            home.replies.insert(0, reply)
    return rows[::-1]


def _same(row: Row, example: Example) -> bool:
    """Whether a row begins with an example's pictures: equal ids say how large they are alone."""
    return row.pictures[: len(example.pictures)] == example.pictures
