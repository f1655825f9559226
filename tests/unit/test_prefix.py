"""Same seed, same text, whatever an earlier turn has left: prompts are encoded in pieces that follow from their ids."""

from __future__ import annotations

import pytest

import redraft
from redraft.engine.prefix import PrefixCache
from redraft.engine.stops import ENCODE_CHUNK, Stops

FIRST = (
    "play jazz by Nina Simone on Spotify",
    "book a table for two in Paris tomorrow",
    "what is the weather in Rome",
    "add this song to my road trip playlist",
    "rate this book four out of five stars",
    "when is the next film at the cinema",
)
SECOND = ("now something by Miles Davis", "and for three people on Sunday", "will it rain there next week")


@pytest.fixture(scope="module", params=[("float32", None), ("bfloat16", None), ("float32", "int8")])
def engine(request):
    dtype, quantize = request.param
    return redraft.load("mini", dtype=dtype, quantize=quantize, threads=1)


def logits_behind(engine, messages):
    """The first step's logits of a reply to these messages, bit for bit what its text follows from."""
    *drafts, _ = engine.stream(messages, seed=3, max_denoising_steps=2)
    return [draft.entropy_nats for draft in drafts if hasattr(draft, "entropy_nats")]


def talk(first, answer, second):
    said = {"role": "assistant", "content": answer}
    return [{"role": "user", "content": first}, said, {"role": "user", "content": second}]


@pytest.mark.parametrize("answer", ["Done.", "I can only help with music. " * 12])
def test_a_second_turn_is_the_same_with_and_without_what_the_first_has_left(engine, answer):
    for number, first in enumerate(FIRST):
        messages = talk(first, answer, SECOND[number % len(SECOND)])
        engine.prefixes = PrefixCache()
        without = engine.generate(messages, seed=number)
        without_entropies = logits_behind(engine, messages)
        assert without.stats.cached_tokens == 0
        engine.prefixes = PrefixCache()
        engine.generate(messages[:1], seed=0)
        behind = engine.generate(messages, seed=number)
        assert behind.stats.cached_tokens > 0
        assert behind.token_ids == without.token_ids
        assert behind.raw == without.raw
        # Not only the tokens: not a bit of what they are drawn from differs.
        assert logits_behind(engine, messages) == without_entropies


def test_pieces_follow_from_the_ids_before_them():
    stops = Stops(canvas_length=4, opening=(7, 8), results=frozenset({9}), ends=frozenset({1}))
    ids = [2, 5, 7, 8, *range(20, 30), 1, 5, 5, 7, 8, 20, 1, 9, 30, 5]
    assert stops(ids) == [4, 8, 12, 19, 22, 24]
    for length in range(len(ids)):
        assert stops.lasting(ids[:length]) == [end for end in stops.lasting(ids) if end <= length]


def test_long_prompts_have_pieces_of_a_bounded_length():
    plain = Stops(canvas_length=0)
    assert plain([5] * (2 * ENCODE_CHUNK + 3)) == [ENCODE_CHUNK, 2 * ENCODE_CHUNK, 2 * ENCODE_CHUNK + 3]
    assert plain([]) == []


def test_a_part_of_an_encode_is_never_gone_on_from(engine):
    """What is left of a longer product may differ in a last bit from one that ends there."""
    cache = engine.model.new_cache()
    import torch

    engine.model.encode(torch.tensor([[2, 4, 30, 31, 32]]), cache)
    engine.model.encode(torch.tensor([[33, 34]]), cache)
    only = cache.sequences[0]
    assert only.ends == [5, 7]
    assert only.fork().ends == [5, 7]
    only.cut(5)
    assert only.ends == [5]
    only.cut(3)
    assert only.ends == [-1]
