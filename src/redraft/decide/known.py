"""What of a model the questions must know: how it writes, and where its canvas ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redraft.text.constraint import ConstraintFactory


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model, as far as questions are concerned; an engine makes it.

    Attributes:
        tokenize: a conversation's prompt, up to where the reply begins; what someone typed is text there.
        encode: a text's ids as it stands, no template around it; markers are read as such.
        constraints: makes automata of texts over this model's tokens.
        end_id: end-of-turn.
        end_ids: every token that ends a reply.
        pad_id: what stands behind the end of a reply in a canvas, as in training.
        canvas_length: positions of a whole canvas; 0 where the model has none.
        max_context: tokens of prompt and canvas together.
        vocab_size: of the model, padding included.
        thought: the empty thought as its ids, where this model's replies begin with one, else nothing.
        encode_text: a text's ids as it stands, in which a marker is text; None: `encode` has to do.
        look: a conversation with its pictures opened and brought to their size, once for all that is asked about it.
        lay_out: a conversation's prompt as `tokenize` has it, and its pictures, as reads take them.
        identity: what a calibration is bound to: model, parameters, dtype, quantisation.
    """

    tokenize: Callable[[Sequence[Mapping[str, Any]]], list[int]]
    encode: Callable[[str], list[int]]
    constraints: Callable[[], ConstraintFactory]
    end_id: int
    end_ids: tuple[int, ...]
    pad_id: int
    canvas_length: int
    max_context: int
    vocab_size: int
    thought: tuple[int, ...] = ()
    encode_text: Callable[[str], list[int]] | None = None
    look: Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]] | None = None
    lay_out: Callable[[Sequence[Mapping[str, Any]]], tuple[list[int], tuple[Any, ...]]] | None = None
    identity: Mapping[str, Any]
