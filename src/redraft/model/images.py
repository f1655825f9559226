"""Pictures in the causal mode: soft tokens in the place of placeholders, and who sees whom inside a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from redraft.core.changes import ImageAttention
from redraft.core.errors import OptionError, PromptError

# T positions, S keys, n soft tokens of one picture, D width of the text model

Reading = ImageAttention
READINGS: tuple[Reading, ...] = get_args(Reading)
"""Who sees whom inside a picture. All agree on text, which is causal, and on what lies outside a sliding window.

- google: sliding layers see the picture both ways, as far as the window reaches to either side; full layers are
  causal. The released weights were made with it.
- gemma4: transformers' Gemma 4; as google's, but nothing bounds how far ahead a picture is seen.
- generate: of transformers' DiffusionGemma, `generate`: every layer sees the whole picture both ways, window or not.
- causal: of transformers' DiffusionGemma, `forward`, which makes its masks and throws them away.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """One picture in a row of ids that are encoded together.

    Attributes:
        start: index of its first placeholder in the row.
        soft: its soft tokens, [n, D]; they stand in the place of the n ids from `start` on.
    """

    start: int
    soft: Float[Tensor, "n D"]

    @property
    def run(self) -> tuple[int, int]:
        """(first, behind the last) of its positions in the row."""
        return self.start, self.start + self.soft.shape[0]


def check_reading(reading: object) -> Reading:
    """One of `READINGS`.

    Raises:
        OptionError: it is none.
    """
    if reading not in READINGS:
        raise OptionError(f"image_attention must be one of {', '.join(READINGS)}, got {reading!r:.80}")
    return reading  # type: ignore[return-value]


def placed_in(ids: Sequence[int], image_token_id: int, soft: Sequence[Float[Tensor, "n D"]]) -> list[Placed]:
    """Where pictures stand in a row of ids: the j-th run of placeholders is the j-th picture's.

    Raises:
        PromptError: as many runs as pictures are not there, or one is of another length.
    """
    runs: list[list[int]] = []
    for index, token in enumerate(ids):
        if token == image_token_id:
            if runs and runs[-1][1] == index:
                runs[-1][1] += 1
            else:
                runs.append([index, index + 1])
    lengths, wanted = [end - start for start, end in runs], [len(tokens) for tokens in soft]
    if lengths != wanted:
        raise PromptError(f"the prompt has room for pictures of {lengths} tokens, the pictures have {wanted}")
    return [Placed(start=start, soft=tokens) for (start, _), tokens in zip(runs, soft, strict=True)]


def check_room(ids: Sequence[int], pictures: int, place: int) -> None:
    """Whether a rendered prompt has one placeholder for each picture.

    Raises:
        PromptError: it has not.
    """
    if (found := ids.count(place)) != pictures:
        raise PromptError(f"the chat template makes room for {found} pictures, the messages hold {pictures}")


def with_room(
    ids: Sequence[int], counts: Sequence[int], begin: int, place: int, end: int
) -> tuple[list[int], list[int]]:
    """(ids, where each picture's first placeholder stands): the one placeholder of each picture becomes a beginning, as
    many placeholders as it has soft tokens, and an end.

    Args:
        ids: of a rendered prompt.
        counts: soft tokens of the pictures, in their order.
        begin, place, end: the checkpoint's boi, image and eoi tokens.

    Raises:
        PromptError: as many placeholders as pictures are not there.
    """
    check_room(ids, len(counts), place)
    found: list[int] = []
    starts: list[int] = []
    for token in ids:
        if token != place:
            found.append(token)
            continue
        count = counts[len(starts)]
        starts.append(len(found) + 1)
        found += [begin, *[place] * count, end]
    return found, starts


def check_placed(images: Sequence[Sequence[Placed]], lengths: Sequence[int], width: int) -> None:
    """Whether each row's pictures lie whole in it, one behind the other.

    Raises:
        ValueError: one does not; a piece of a prompt must not end inside a picture.
    """
    if len(images) != len(lengths):
        raise ValueError(f"pictures of {len(images)} rows for {len(lengths)} rows")
    for placed, length in zip(images, lengths, strict=True):
        end = 0
        for image in placed:
            start, behind = image.run
            if not end <= start < behind <= length:
                raise ValueError(f"a picture at {start} to {behind} does not fit a row of {length} ids")
            if image.soft.shape[1] != width:
                raise ValueError(f"soft tokens of width {image.soft.shape[1]}, the model has {width}")
            end = behind


def with_soft_tokens(embedded: Float[Tensor, "B T D"], images: Sequence[Sequence[Placed]]) -> Float[Tensor, "B T D"]:
    """The rows of placeholders replaced, after the scale that embeddings have: soft tokens have none."""
    embedded = embedded.clone()
    for row, placed in enumerate(images):
        for image in placed:
            start, end = image.run
            # Not through a view of the row: gradients go back to the soft tokens.
            embedded[row, start:end] = image.soft.to(device=embedded.device, dtype=embedded.dtype)
    return embedded


def image_mask(
    queries: int,
    keys: int,
    window: int | None,
    runs: Sequence[tuple[int, int]],
    reading: Reading,
    device: torch.device | None = None,
) -> Bool[Tensor, "T S"]:
    """Which of `keys` positions the last `queries` of them see.

    Args:
        queries, keys: their numbers.
        window: of a sliding layer, in positions; None of a full one.
        runs: (first, behind the last) of each picture, counted in queries. What boundaries stand around it is text.
        reading: who sees whom inside a picture.
        device: where it is made.
    """
    ages: Int[Tensor, "T S"] = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(
        keys, device=device
    )
    causal = ages >= 0
    same = torch.zeros_like(causal)
    for start, end in runs:
        same[start:end, keys - queries + start : keys - queries + end] = True
    if window is None:
        return causal | same if reading == "generate" else causal
    near = ages < window
    if reading == "generate":
        return (causal & near) | same
    if reading == "causal":
        return causal & near
    if reading == "google":
        near &= ages > -window
    return (causal | same) & near
