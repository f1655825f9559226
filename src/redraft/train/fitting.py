"""The rows that a run can learn from: every one is rendered and measured before the first step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from redraft.core.errors import DataError, RecipeError
from redraft.text.conversations import Conversation
from redraft.train.bars import checking_bar
from redraft.train.data import Part
from redraft.train.examples import rendered
from redraft.train.forms import Form
from redraft.train.recipe import Recipe


@dataclass(frozen=True)
class Fit:
    """What is left of the data.

    Attributes:
        parts: without the rows that are left out.
        left_out: rows, held-out ones among them, none of whose prompts leaves room for a reply.
        cut: replies of the others that are cut to `max_length`.
        bad: rows that cannot be used and are left out, too.
    """

    parts: list[Part]
    left_out: int
    cut: int
    bad: int


def fitting(recipe: Recipe, parts: list[Part], form: Form) -> Fit:
    """Renders all rows, in the order of their files, and leaves out those that are too long.

    Raises:
        DataError: a row that the chat template refuses, or that has nothing to learn from.
        RecipeError: no row is left to train on.
    """
    measured = _Measured(form, skips_bad=recipe.skip_bad)
    with checking_bar(sum(len(part.train) + len(part.held_out) for part in parts)) as report:
        for part in parts:
            part.per_epoch()
            measured.bad += part.bad
            rows = [*part.train, *part.held_out]
            measured.add(sorted(rows, key=lambda row: row.line), part.path, report)
    kept = []
    for part in parts:
        train, held_out = (
            [row for row in rows if (part.path, row.line) not in measured.left_out | measured.refused]
            for rows in (part.train, part.held_out)
        )
        if not train and any((part.path, row.line) in measured.refused for row in part.train):
            raise RecipeError(f"{part.path}: no row is left to train on; the first bad one: {measured.bad[0]}")
        if not train:
            lengths = [measured.left_out[part.path, row.line] for row in part.train]
            raise RecipeError(
                f"{part.path}: max_length {recipe.max_length} leaves no room for any of {len(lengths)} rows, whose "
                f"prompts have {min(lengths)} to {max(lengths)} tokens: raise it"
            )
        kept.append(replace(part, train=train, held_out=held_out))
    found = Fit(kept, len(measured.left_out), measured.cut, len(measured.bad))
    _say(recipe, found, measured)
    return found


class _Measured:
    """What was found so far."""

    def __init__(self, form: Form, *, skips_bad: bool) -> None:
        self.form, self.template, self.skips_bad = form, form.encoder.template, skips_bad
        # By file and line: the shortest prompt of a row, and what is wrong with one.
        self.left_out: dict[tuple[str, int], int] = {}
        self.refused: dict[tuple[str, int], int] = {}
        self.bad: list[DataError] = []
        self.cut = self.beyond = self.seen = self.declaring = 0
        self.prints_tools = True

    def add(self, rows: list[Conversation], path: str, report: Callable[[int], None]) -> None:
        for row in rows:
            self.seen += 1
            if self.seen % 100 == 0:
                report(self.seen)
            try:
                found = self.form.found(row, path)
            except DataError as error:
                if not self.skips_bad:
                    raise
                self.bad.append(error)
                self.refused[path, row.line] = 0
                continue
            if not found.made:
                self.left_out[path, row.line] = found.shortest
            else:
                self.beyond += found.left_out
            self.cut += found.cut
            if row.tools:
                if not self.declaring:
                    without = rendered(self.template, replace(row, tools=None), path)
                    self.prints_tools = rendered(self.template, row, path) != without
                self.declaring += 1


def _say(recipe: Recipe, found: Fit, measured: _Measured) -> None:
    """What of the data does not reach the model, on stderr."""
    if found.left_out:
        longest = max(measured.left_out.values())
        _note(
            f"{found.left_out} of {measured.seen} rows are left out: max_length is {recipe.max_length}, their prompts "
            f"have up to {longest} tokens"
        )
    if found.bad:
        _note(f"{found.bad} rows cannot be used and are left out; the first: {measured.bad[0]}")
    if measured.beyond:
        _note(f"{measured.beyond} replies of other rows are left out: they lie beyond max_length, {recipe.max_length}")
    if found.cut:
        _note(f"{found.cut} replies are cut: with their prompts they are longer than max_length, {recipe.max_length}")
    if not measured.prints_tools:
        _note(f"the chat template prints no declarations: those of {measured.declaring} rows are not in their prompts")
    per_epoch = sum(part.per_epoch() for part in found.parts)
    if per_epoch < recipe.batch_size:
        _note(f"an epoch has {per_epoch} rows, less than a batch of {recipe.batch_size}: batches are as short as that")


def _note(text: str) -> None:
    print(f"redraft: {text}", file=sys.stderr)
