"""Canvases of questions, token for token, and which labels a tokenizer allows."""

from __future__ import annotations

import re

import pytest

import redraft.decide.canvases as canvases
from deciding import known, text, tokenizer
from redraft.core.errors import OptionError, QuestionError
from redraft.core.questions import Question, choice, predicate, score
from redraft.core.reads import NOISE, Slot
from redraft.decide.cost import cheaper
from redraft.decide.labels import Labels, listed

END, PAD = 5, 0
CAT = predicate("Is it a cat?")
TOOL = choice("Which?", ["play", "stop", "next"])
MOOD = score("How glad?", ["not", "some", "very"])


def words(*whole: str):
    """A tokenizer of words, digits and signs, in which these are one token, too."""
    ids: dict[str, int] = {}
    pattern = re.compile("|".join([*map(re.escape, sorted(whole, key=len, reverse=True)), r"\w", r"\W"]))
    return lambda written: [ids.setdefault(piece, 100 + len(ids)) for piece in pattern.findall(written)]


def one(*labels: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(label)[0] for label in labels)


def test_a_single_label_is_followed_by_the_end_and_padding():
    canvas = canvases.of_label(known(), one("A", "B"), None)
    assert canvas.ids == (NOISE, END, *[PAD] * 14)
    assert canvas.slots == (Slot(position=0, token_ids=one("A", "B")),)
    assert canvases.of_label(known(), one("A", "B"), 3).ids == (NOISE, END, PAD)
    assert len(canvases.of_label(known(canvas_length=8), one("A", "B"), None).ids) == 8


@pytest.mark.parametrize(
    ("width", "said"), [(1, "width must be at least 2"), (49, "width must be at most this model's 48")]
)
def test_a_width_without_room_is_named(width, said):
    with pytest.raises(OptionError, match=said):
        canvases.of_label(known(), one("A", "B"), width)


@pytest.mark.parametrize(("longest", "wide"), [(2, 16), (16, 16), (17, 32), (40, 48), (48, 48)])
def test_texts_get_as_few_sixteens_as_hold_the_longest(longest, wide):
    assert canvases.of_text(known(), longest, None).ids == (NOISE,) * wide


def test_a_text_longer_than_the_canvas_is_refused():
    with pytest.raises(QuestionError, match="choices hold a text of 49 tokens with its end, and a canvas .* has 48"):
        canvases.of_text(known(), 49, None)
    with pytest.raises(QuestionError, match="levels hold a text of 49 tokens"):
        canvases.of_text(known(), 49, None, part="levels")
    with pytest.raises(QuestionError, match="levels hold a text of 7 tokens with its end: width 6 has no room"):
        canvases.of_text(known(), 7, 6, part="levels")


def test_a_joint_canvas_has_a_line_for_each_question():
    labels = Labels(known())
    puts = [listed(CAT, "letter"), listed(TOOL, "letter", (2, 0, 1)), listed(MOOD, "digit")]
    lines = canvases.lines_of(labels, puts, 48)
    assert lines is not None
    canvas = canvases.of_lines(known(), lines, None)
    meant = tokenizer().encode("1: A\n2: B\n3: 0")
    for slot, label in zip(canvas.slots, ("A", "B", "0"), strict=True):
        assert meant[slot.position] == one(label)[0]
        meant[slot.position] = NOISE
    assert canvas.ids == (*meant, END, *[PAD] * (16 - len(meant) - 1))
    # "next" is listed first, so that its label is A.
    assert canvas.slots[1].token_ids == one("B", "C", "A")
    assert canvas.slots[2].token_ids == one("0", "1", "2")
    assert text(canvas.slots[0].token_ids) == "A B"


def test_a_joint_canvas_has_padding_where_there_is_room():
    labels = Labels(known())
    for count, wide in ((3, 16), (4, 32), (7, 32), (8, 48), (11, 48)):
        lines = canvases.lines_of(labels, [listed(CAT, "letter")] * count, 48)
        assert lines is not None
        ids = canvases.of_lines(known(), lines, None).ids
        assert len(ids) == wide
        assert ids[ids.index(END) + 1 :] == (PAD,) * (wide - ids.index(END) - 1) != ()
    # Twelve lines and the end are the whole canvas.
    lines = canvases.lines_of(labels, [listed(CAT, "letter")] * 12, 48)
    assert lines is not None
    assert canvases.of_lines(known(), lines, None).ids[-1] == END
    assert canvases.lines_of(labels, [listed(CAT, "letter")] * 13, 48) is None


@pytest.mark.parametrize(
    ("count", "parts", "sizes"), [(7, 2, [3, 4]), (400, 34, [11, 12]), (3, 2, [1, 2]), (5, 1, [5])]
)
def test_runs_are_even(count, parts, sizes):
    runs = canvases.evenly(count, parts)
    assert sorted({len(run) for run in runs}) == sizes
    assert [place for run in runs for place in run] == list(range(count))
    assert len(runs) == parts


def test_labels_are_those_that_are_one_token():
    assert Labels(known()).alone(CAT) == "letter"  # "yes" is two tokens of mini's
    spoken = Labels(known(encode=words("yes", "no")))
    assert spoken.alone(CAT) == spoken.together(CAT) == "yes/no"
    assert [spoken.alone(MOOD), spoken.together(MOOD)] == ["digit", "digit"]
    assert [spoken.alone(TOOL), spoken.together(TOOL)] == ["letter", "letter"]


def test_labels_that_merge_with_what_stands_before_them_are_none_there():
    merged = Labels(known(encode=words("yes", "no", ": yes")))
    assert merged.alone(CAT) == "yes/no"
    assert merged.together(CAT) == "letter"
    ended = Labels(known(encode=words("A\n", "B\n")))
    assert ended.alone(TOOL) == "letter"
    assert ended.together(TOOL) is None


def test_a_question_without_labels_is_asked_by_its_text_or_refused():
    same = Labels(known(encode=lambda written: [7, 8]))
    assert same.alone(TOOL) == "text"
    assert same.together(TOOL) is None
    with pytest.raises(QuestionError, match=r"choices have no labels: neither 'A' to 'C' are one token each"):
        same.alone(choice("Which?", ["play", "stop", "next"], form="label"))
    with pytest.raises(QuestionError, match=r"levels have no labels: neither '0' to '2' nor 'A' to 'C'"):
        same.alone(MOOD)
    # One token each, but the same one.
    with pytest.raises(QuestionError, match="form have no labels: neither 'yes' to 'no' nor 'A' to 'B'"):
        Labels(known(encode=lambda written: [7])).alone(CAT)


def test_more_options_than_letters_are_asked_by_their_text():
    many = [str(number) for number in range(27)]
    assert Labels(known()).alone(choice("Which?", many)) == "text"
    assert Labels(known()).alone(choice("Which?", many[:26])) == "letter"
    with pytest.raises(QuestionError, match="choices are 27, more than there are letters"):
        Labels(known()).alone(choice("Which?", many, form="label"))


def test_a_reply_has_no_labels():
    reply = Question(kind="choice", instructions="", options=TOOL.options, form="reply")
    assert (Labels(known()).alone(reply), Labels(known()).together(reply)) == ("text", None)


def test_the_cheaper_reader_runs_fewer_positions():
    assert cheaper(16, 1, ()) == "causal"
    assert cheaper(16, 1, [(1, 2, 3)] * 7) == "causal"  # 14 positions against 16
    assert cheaper(16, 1, [(1, 2, 3)] * 8) == "canvas"  # as many
    assert cheaper(16, 2, [(1, 2, 3)] * 8) == "causal"
    assert cheaper(16, 1, [(1,)] * 100) == "causal"


def test_labels_that_are_one_token_on_a_line_are_none():
    plain = words()

    def encode(written: str) -> list[int]:
        # Of what follows a colon, this one tells A from all else and no more.
        return plain(written.replace("C", "B") if ":" in written else written)

    labels = Labels(known(encode=encode))
    assert labels.alone(TOOL) == "letter"
    assert labels.together(TOOL) is None
    assert labels.together(CAT) == "letter"
