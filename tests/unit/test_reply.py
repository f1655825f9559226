"""Where a reply ends, and what of it may be shown before it does."""

from __future__ import annotations

import pytest

from redraft.engine.reply import Reply

END = 0


class Letters:
    """A tokenizer whose tokens are letters, or two of them: id 200 + i is a doubled letter."""

    def decode(self, token_ids, skip_special_tokens=False):
        return "".join(chr(i) if i < 200 else chr(i - 200) * 2 for i in token_ids)


def ids(text):
    return [END if letter == "." else ord(letter) for letter in text]


def reply(budget=100, stop=()):
    return Reply(Letters(), {END}, budget, stop)  # type: ignore[arg-type]


def feed(reply, *canvases):
    return [reply.add(ids(canvas))[1] for canvas in canvases]


def test_it_ends_before_end_of_turn():
    r = reply()
    assert feed(r, "abcd", "ef.zz.") == ["abcd", "ef"]
    assert (r.text, r.finish, r.token_ids) == ("abcdef", "stop", ids("abcdef"))


def test_the_budget_cuts_a_canvas():
    r = reply(budget=5)
    assert feed(r, "abc", "def") == ["abc", "de"]
    assert r.finish == "length"


def test_end_of_turn_right_behind_the_budget_is_length():
    r = reply(budget=3)
    feed(r, "abc.")
    assert r.finish == "stop"
    r = reply(budget=3)
    feed(r, "abcd")
    assert r.finish == "length"


@pytest.mark.parametrize("canvases", [("abSTOPcd",), ("abS", "TOPcd"), ("a", "bSTO", "Pc"), ("abSTOP.",)])
def test_a_stop_string_ends_it_wherever_it_is_cut(canvases):
    r = reply(stop=["STOP", "nothing"])
    assert "".join(feed(r, *canvases)) == "ab"
    assert (r.text, r.finish, r.token_ids) == ("ab", "stop", ids("ab"))


def test_what_may_become_a_stop_string_is_held_back():
    r = reply(stop=["STOP"])
    assert feed(r, "abST", "xy", "zS") == ["ab", "STxy", "z"]
    assert r.close("length") == "S"
    assert r.text == "abSTxyzS"


def test_the_earliest_of_several_stop_strings_wins():
    r = reply(stop=["dd", "bc"])
    feed(r, "abcdd")
    assert r.text == "a"


def test_a_token_that_straddles_the_stop_string_is_not_counted():
    r = reply(stop=["ab"])
    r.add([ord("x"), 200 + ord("a"), ord("b")])
    assert r.text == "xa"
    assert r.token_ids == [ord("x")]


def test_an_incomplete_character_is_held_back():
    piece = Reply(Letters(), {END}, 9, ())  # type: ignore[arg-type]
    piece.tokenizer.decode = lambda token_ids, **_: "a\ufffd" if len(token_ids) == 2 else "aé"  # type: ignore[union-attr]
    assert piece.add([1, 2])[1] == "a"
    assert piece.add([3])[1] == "é"


def test_without_a_tokenizer_there_are_only_ids():
    r = Reply(None, {END}, 10, ["x"])
    assert r.add([7, 8, END, 9]) == ([7, 8], "", "")
    assert (r.text, r.finish) == ("", "stop")
