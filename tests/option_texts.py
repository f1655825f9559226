"""A model of a few tokens whose options by their own text can be weighed by hand, over its whole vocabulary."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from redraft.core.errors import SchemaError
from redraft.decide.known import Known
from redraft.text.constraint import ConstraintFactory
from redraft.text.grammar.nodes import Node
from redraft.text.schema import schema_node
from redraft.text.schema.fields import SchemaField
from redraft.text.tokenizer import Tokenizer

SPECIALS = ("<pad>", "<eos>", "<turn|>", "<|tool_call>")
PIECES = ("a", "b", "ab", "ba", "aba", "é", "<0xC3>", "<0xA9>", "<0xE9>")
PAD, EOS, TURN, CALL = range(len(SPECIALS))
ENDS = (TURN, EOS)
VOCABULARY = len(SPECIALS) + len(PIECES)


@functools.cache
def few_tokens() -> Tokenizer:
    """Letters, two ways to write é and a half of it, and a marker."""
    tokens = {token: number for number, token in enumerate((*SPECIALS, *PIECES))}
    backend = Backend(models.BPE(tokens, [("a", "b"), ("b", "a"), ("a", "ba")], byte_fallback=True))
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return Tokenizer(backend)


def known_of(tokenizer: Tokenizer, ends: tuple[int, ...], pad: int, length: int) -> Known:
    """What questions must know of a model with this tokenizer."""
    factory = ConstraintFactory(tokenizer, ends, pad, pad, tokenizer.num_ids)
    return Known(
        tokenize=lambda messages: [],
        encode=tokenizer.encode,
        constraints=lambda: factory,
        end_id=ends[0],
        end_ids=ends,
        pad_id=pad,
        canvas_length=length,
        max_context=4096,
        vocab_size=tokenizer.num_ids,
        identity={},
    )


def written(tokens: tuple[int, ...]) -> bytes | None:
    """What tokens of the few spell before the first special one, the marker as itself; None where that ends no reply.

    A special token that is none of these does not end a reply, and is no text either.
    """
    found = []
    for token in tokens:
        if token in ENDS:
            break
        if token == PAD:
            return None
        piece = (*SPECIALS, *PIECES)[token]
        # The marker as no text could spell it.
        found.append(b"\xff" if token == CALL else bytes([int(piece[3:5], 16)]) if "<0x" in piece else piece.encode())
    return b"".join(found)


def by_hand(log_probs: torch.Tensor, options: list[str], *, open_end: bool) -> list[float]:
    """The weight of each option, from every sequence of tokens."""
    scores = log_probs.double().numpy()
    wanted = [option.replace("<|tool_call>", "\udcff").encode(errors="surrogateescape") for option in options]
    if not open_end:
        wanted = [option.encode() for option in options]
    found = np.zeros(len(options))
    for tokens in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        weight = np.exp(sum(scores[place, token] for place, token in enumerate(tokens)))
        for number in _taken(tokens, wanted, open_end):
            found[number] += weight
    with np.errstate(divide="ignore"):
        return np.log(found).tolist()


def _taken(tokens: tuple[int, ...], wanted: list[bytes], open_end: bool) -> Iterator[int]:
    if open_end:
        texts = [written(tokens[:count]) for count in range(1, len(tokens) + 1)]
        for number, option in enumerate(wanted):
            if any(text is not None and text.startswith(option) for text in texts):
                yield number
        return
    end = next((place for place, token in enumerate(tokens) if token in ENDS), len(tokens))
    text = written(tokens[:end])
    if text in wanted and all(token in (*ENDS, PAD) for token in tokens[end:]):
        yield wanted.index(text)


def noise(seed: int, length: int, vocabulary: int = VOCABULARY, spread: float = 2.0) -> torch.Tensor:
    """Log-probabilities of a model that is sure of nothing in particular."""
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(length, vocabulary, generator=generator).double() * spread, -1)


def narrowed(schema: Any, field: SchemaField) -> list[tuple[Any, Node]]:
    """(value, the tree of what a schema allows with it in a field) of each that it does allow there."""
    found = []
    for value in field.values:
        try:
            found.append((value, schema_node(_fixed(schema, field.path, value, schema), root=schema)))
        except SchemaError:
            continue
    return found


def _fixed(schema: Any, path: tuple[str, ...], value: Any, root: Any) -> dict[str, Any]:
    if "$ref" in schema:
        return _fixed(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], path, value, root)
    if path:
        inner = _fixed(schema["properties"][path[0]], path[1:], value, root)
        return {**schema, "properties": {**schema["properties"], path[0]: inner}}
    if isinstance(value, int) and not isinstance(value, bool) and "enum" not in schema:
        return {**schema, "minimum": value, "maximum": value}
    return {**schema, "enum": [value]}
