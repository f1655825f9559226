"""Options by their own text: what they weigh over a canvas, against every sequence of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from option_texts import CALL, ENDS, EOS, PAD, TURN, VOCABULARY, by_hand, few_tokens, known_of, noise
from redraft.checkpoint.locate import BUNDLED
from redraft.core.errors import QuestionError
from redraft.decide import texts as module
from redraft.decide.texts import texts_of
from redraft.kernels.option_weights import OptionWeights, option_weights
from redraft.text.tokenizer import Tokenizer

L = 4
FEW = known_of(few_tokens(), ENDS, PAD, L)
MINI = Tokenizer.from_directory(BUNDLED / "mini")
MINI_ENDS, MINI_PAD = MINI.end_of_turn_ids(), MINI.id_of("<pad>")
KNOWN = known_of(MINI, MINI_ENDS, MINI_PAD, 48)

OPTIONS = {
    "in several tokens": ["ab", "ba", "abab"],
    "one begins the other": ["a", "ab", "aba"],
    "of several bytes": ["é", "aé", "b"],
    "as long as the canvas": ["bbbb", "b"],
}


@pytest.fixture(params=["explicit", "broad"])
def parting(request, monkeypatch):
    """Whether classes of tokens are summed as a whole."""
    module._made.cache_clear()
    if request.param == "broad":
        monkeypatch.setattr("redraft.core.automaton.EXPLICIT", 1)
        monkeypatch.setattr("redraft.core.automaton.BROAD_LEAST", 1)
    yield
    module._made.cache_clear()


@pytest.mark.usefixtures("parting")
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_whole_reply_weighs_what_all_its_spellings_do(name, seed):
    log_probs = noise(seed, L)
    found, opening = option_weights(log_probs, texts_of(FEW, OPTIONS[name], open_end=False))
    np.testing.assert_allclose(found, by_hand(log_probs, OPTIONS[name], open_end=False), rtol=0, atol=1e-9)
    assert opening < 0


@pytest.mark.parametrize(
    "options", [["ab", "é"], ["<|tool_call>a", "<|tool_call>b", "aa"], ["<|tool_call>", "a", "bab"]]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_reply_begins_with_counts_where_a_token_goes_beyond_it(options, seed):
    log_probs = noise(seed, L)
    found, _ = option_weights(log_probs, texts_of(FEW, options, open_end=True))
    np.testing.assert_allclose(found, by_hand(log_probs, options, open_end=True), rtol=0, atol=1e-9)


def test_a_token_that_ends_a_turn_spells_nothing():
    ends = (few_tokens().id_of("b"), TURN)
    texts = texts_of(known_of(few_tokens(), ends, PAD, L), ["ab", "a"], open_end=False)
    assert texts.end_ids == ends
    assert texts.automaton.class_of[ends[0]] < 0
    with pytest.raises(QuestionError, match="cannot spell"):
        texts_of(known_of(few_tokens(), ends, PAD, L), ["b", "a"], open_end=False)


def test_the_opening_is_all_that_an_option_may_begin_with():
    log_probs = noise(5, L)
    for options, tokens in (["ab", "é"], ["a", "ab", "é", "<0xC3>"]), (["ba"], ["b", "ba"]):
        _, opening = option_weights(log_probs, texts_of(FEW, options, open_end=False))
        ids = [few_tokens().id_of(token) for token in tokens]
        assert opening == pytest.approx(float(torch.logsumexp(log_probs[0, ids], 0)), abs=1e-12)


def test_what_fills_the_canvas_stands_only_behind_the_end():
    log_probs = torch.full((L, VOCABULARY), -torch.inf, dtype=torch.float64)
    a = few_tokens().id_of("a")
    texts = texts_of(FEW, ["a", "b"], open_end=False)
    for row, token in enumerate((a, TURN, PAD, EOS)):
        log_probs[row, token] = 0.0
    assert option_weights(log_probs, texts)[0] == (0.0, -np.inf)
    log_probs[1, TURN], log_probs[1, PAD] = -np.inf, 0.0
    assert option_weights(log_probs, texts)[0] == (-np.inf, -np.inf), "padding before the end is no end"


def test_a_marker_that_someone_typed_is_text():
    with pytest.raises(QuestionError, match="choices hold '<|tool_call>', which this model's tokens cannot spell"):
        texts_of(FEW, ["<|tool_call>", "a"], open_end=False)
    texts = texts_of(KNOWN, ["<|tool_call>x", "\ue000"], open_end=False)
    assert texts.automaton.class_of[MINI.id_of("<|tool_call>")] < 0
    marked = texts_of(KNOWN, ["<|tool_call>x", "y"], open_end=True)
    state = marked.automaton.advance(marked.automaton.start, MINI.encode("<|tool_call>x"))
    assert state in marked.whole[0]
    assert texts_of(FEW, ["<|tool_call>", "a"], open_end=True).automaton.class_of[CALL] >= 0


def test_pieces_of_a_canvas_say_the_same_as_the_whole():
    log_probs = noise(2, 6).float()
    texts = texts_of(FEW, ["ab", "é", "b"], open_end=False)
    weights = OptionWeights(texts, 6)
    for first in (4, 0, 2):
        with pytest.raises(ValueError, match="positions of the canvas are missing"):
            weights.result()
        weights.add(first, log_probs[first : first + 2])
    assert weights.result() == option_weights(log_probs, texts)
    with pytest.raises(ValueError, match="a canvas of 6"):
        weights.add(5, log_probs[:2])
    with pytest.raises(ValueError, match="over 13 tokens"):
        weights.add(0, log_probs[:, :5])


def test_a_weight_that_float64_has_no_number_for_is_still_told_from_others():
    log_probs = noise(4, 200, spread=40.0)
    found, _ = option_weights(log_probs, texts_of(known_of(few_tokens(), ENDS, PAD, 200), ["ab", "ba"], open_end=False))
    assert all(np.isfinite(found))
    assert max(found) < -2000


@pytest.mark.parametrize("open_end", [False, True])
def test_255_options_are_each_told_apart(open_end):
    options = [f"option {number:03d} of many" for number in range(255)]
    texts = texts_of(KNOWN, options, open_end=open_end)
    assert len({state for states in texts.whole for state in states}) == sum(map(len, texts.whole))
    log_probs = noise(6, 48, MINI.num_ids, 1.0)
    # What the model is sure of.
    for row, token in enumerate([*MINI.encode(options[217]), MINI_ENDS[0]]):
        log_probs[row] = torch.log_softmax(torch.nn.functional.one_hot(torch.tensor(token), MINI.num_ids) * 20.0, -1)
    found, _ = option_weights(log_probs, texts)
    assert int(np.argmax(found)) == 217
    alone, _ = option_weights(log_probs, texts_of(KNOWN, [options[3], options[217]], open_end=open_end))
    np.testing.assert_allclose(alone, [found[3], found[217]], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "open_end", "message"),
    [
        (["a", "xyz"], False, "choices hold 'xyz', which this model's tokens cannot spell"),
        (["a", "bbbbb" * 4], False, "which takes 20 tokens: a canvas has 4"),
        (["a", ""], False, "choices hold an empty text"),
        (["a", "a"], False, "choices hold 'a' twice"),
        (["a", "ab"], True, "choices hold 'a', which 'ab' begins with"),
        (["a", "\ud800"], False, "is no text"),
        (["a", True], False, "must be texts"),
        (["a", "b" * 60_000], False, "too much text in all"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(options, open_end, message):
    with pytest.raises(QuestionError) as caught:
        texts_of(FEW, options, open_end=open_end)
    assert caught.value.field == "choices"
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_too_many_ways_to_spell_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_TOKENS", 20)
    with pytest.raises(QuestionError, match="choices can be spelled in too many ways"):
        texts_of(KNOWN, ["thirty minutes", "forty"], open_end=False)


def test_an_error_calls_options_what_their_question_does():
    with pytest.raises(QuestionError, match="levels hold 'a' twice") as caught:
        texts_of(FEW, ["a", "a"], open_end=False, part="levels")
    assert caught.value.field == "levels"
