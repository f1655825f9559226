"""Options over mini's tokens against every way to part a text, and over few tokens against every sequence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from option_texts import ENDS, PAD, by_hand, few_tokens, known_of, noise
from redraft.checkpoint.locate import BUNDLED
from redraft.core.automaton import DEAD
from redraft.decide.texts import texts_of
from redraft.kernels.option_weights import option_weights
from redraft.text.tokenizer import Tokenizer

MINI = Tokenizer.from_directory(BUNDLED / "mini")
MINI_ENDS, MINI_PAD = MINI.end_of_turn_ids(), MINI.id_of("<pad>")
LENGTH = 5
FEW, KNOWN = known_of(few_tokens(), ENDS, PAD, 3), known_of(MINI, MINI_ENDS, MINI_PAD, 64)
PIECES = [(token, MINI.decode([token])) for token in range(MINI.num_ids) if not MINI.is_special(token)]


@given(
    options=st.lists(st.text("abé", min_size=1, max_size=3), min_size=1, max_size=5, unique=True),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=25, deadline=None)
def test_few_tokens_weigh_what_all_sequences_do(options, seed):
    log_probs = noise(seed, 3)
    found, _ = option_weights(log_probs, texts_of(FEW, options, open_end=False))
    np.testing.assert_allclose(found, by_hand(log_probs, options, open_end=False), rtol=0, atol=1e-9)
    apart = [option for option in options if not any(o != option and o.startswith(option) for o in options)]
    found, _ = option_weights(log_probs, texts_of(FEW, apart, open_end=True))
    np.testing.assert_allclose(found, by_hand(log_probs, apart, open_end=True), rtol=0, atol=1e-9)


def spellings(text: str) -> list[tuple[int, ...]]:
    """Every sequence of at most LENGTH tokens that mini's tokenizer reads as this text."""
    found, ways = [], [()]
    near = [token for token, piece in PIECES if piece.strip() in text]
    while ways:
        way = ways.pop()
        if MINI.decode(way) == text:
            found.append(way)
        if len(way) < LENGTH:
            ways += [(*way, token) for token in near if text.startswith(MINI.decode((*way, token)))]
    return found


@pytest.mark.parametrize("text", ["yes", "no", "at six", "New York", "a, b", "rain"])
def test_every_way_to_part_a_text_counts(text):
    texts = texts_of(KNOWN, [text, "elsewhere"], open_end=False)
    ways = spellings(text)
    assert tuple(MINI.encode(text)) in ways
    assert len(ways) > 1
    for way in ways:
        assert texts.automaton.advance(texts.automaton.start, list(way)) in texts.whole[0]
    log_probs = noise(len(text), LENGTH, MINI.num_ids, 3.0)
    scores, total = log_probs.numpy(), -np.inf
    end, fill = (np.logaddexp.reduce(scores[:, list(ids)], 1) for ids in (MINI_ENDS, (MINI_PAD, *MINI_ENDS)))
    for way in ways:
        weight = sum(scores[place, token] for place, token in enumerate(way))
        if len(way) < LENGTH:
            weight += end[len(way)] + fill[len(way) + 1 :].sum()
        total = np.logaddexp(total, weight)
    assert option_weights(log_probs, texts)[0][0] == pytest.approx(total, abs=1e-9)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_the_tokenizer_makes_of_a_text_is_one_of_its_spellings(options):
    options = [option for option in dict.fromkeys(options) if MINI.decode(MINI.encode(option)) == option]
    spelled = [(option, MINI.encode(option)) for option in options]
    # What is a marker to the tokenizer is none where someone typed it.
    spelled = [(o, ids) for o, ids in spelled if not any(map(MINI.is_special, ids))]
    if not spelled:
        return
    texts = texts_of(KNOWN, [option for option, _ in spelled], open_end=False)
    automaton = texts.automaton
    for (_, ids), states in zip(spelled, texts.whole, strict=True):
        state = automaton.advance(automaton.start, ids)
        assert state != DEAD
        assert state in states
