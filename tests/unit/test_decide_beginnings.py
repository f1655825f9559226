"""How a reply begins, token by token, beside a walk over the whole vocabulary."""

from __future__ import annotations

import pytest

import redraft.decide.beginnings as beginnings
from deciding import constraints, tokenizer
from redraft.core.errors import QuestionError

ENDS = (5, 1)


@pytest.mark.parametrize(
    "text", ["<|tool_call>call:GetWeather{", "<|tool_call>call:SearchCreativeWork{", "play", "Yes, I"]
)
def test_every_last_token_that_goes_on_beyond_the_text_counts(text):
    ids = tuple(tokenizer().encode(text))
    found = beginnings.ways_to_begin(constraints().vocabulary, ids, ENDS)
    assert ids in found
    assert len(set(found)) == len(found) > 1
    # mini's tokenizer writes a space before a text's first word.
    for way in found:
        assert tokenizer().decode(way).removeprefix(" ").startswith(text)
    for length in range(len(ids)):
        walked = {
            (*ids[:length], token)
            for token in range(4096)
            if not tokenizer().is_special(token)
            and tokenizer().decode((*ids[:length], token)).removeprefix(" ").startswith(text)
        }
        assert walked <= set(found), text
    for way in found:
        assert not any(other != way and other[: len(way)] == way for other in found)


def test_a_text_that_too_many_tokens_begin_with_is_refused(monkeypatch):
    monkeypatch.setattr(beginnings, "MOST_WAYS", 3)
    with pytest.raises(QuestionError, match="choices hold '.*', which too many tokens begin with"):
        beginnings.ways_to_begin(constraints().vocabulary, tokenizer().encode("p"), ENDS)
