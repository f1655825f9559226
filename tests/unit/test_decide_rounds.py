"""Rounds: what is read of questions about a state, and what comes of the readings."""

from __future__ import annotations

import re

import pytest

from deciding import Driver, answers, decided, known, prompt, surely, text, tokenizer, torn
from redraft.core.decisions import Answer, Refusal
from redraft.core.errors import OptionError, QuestionError
from redraft.core.questions import Option, Question, choice, predicate, score
from redraft.core.reads import CanvasRead, CausalRead

CAT = predicate("Is it a cat?", name="cat")
PET = choice("Which pet?", ["cat", "dog", "cow"], name="pet")
MOOD = score("How glad?", ["not", "some", "very"])
SURE = (0.99, 0.01)
TORN = (0.6, 0.4)


def test_a_question_by_itself_token_for_token():
    driver = Driver(surely)
    decided(driver, CAT, reader="canvas")
    (read,) = driver.reads
    assert isinstance(read, CanvasRead)
    assert read.prompt == prompt("The cat sat.\n\nQuestion: Is it a cat?\nA: yes\nB: no\nAnswer with one letter.")
    assert read.canvas == (-1, 5, *[0] * 14)
    assert (read.draws, read.steps, read.texts) == ((0,), 1, None)
    assert [slot.position for slot in read.slots] == [0]
    assert read.slots[0].token_ids == tuple(tokenizer().encode("A") + tokenizer().encode("B"))


def test_an_empty_thought_stands_behind_the_prompt():
    driver = Driver(surely)
    decided(driver, [CAT, PET], of=known(thought=(10, 547, 11)), joint=True)
    decided(driver, CAT, of=known(thought=(10, 547, 11)), reader="causal")
    assert [read.prompt[-3:] for read in driver.reads] == [(10, 547, 11)] * 2
    assert driver.reads[1].prompt[:-3] == prompt(
        "The cat sat.\n\nQuestion: Is it a cat?\nA: yes\nB: no\nAnswer with one letter."
    )


def test_costs_are_added_up():
    driver = Driver(torn)
    stats = decided(driver, CAT, reader="canvas").stats
    # One draw, further ones in two orders, the causal mode.
    length = len(driver.reads[0].prompt)
    assert (stats.reads, stats.canvas_reads, stats.causal_reads, stats.reread) == (4, 3, 1, 1)
    assert (stats.prompt_tokens, stats.cached_tokens, stats.forwards) == (4 * length, 12, 7)
    assert stats.positions == 4 * (length - 3) + 4 * 16


def test_what_is_kept_follows_from_the_state_alone():
    driver = Driver(surely)
    for questions, joint in (([CAT], False), ([PET], False), ([CAT, PET], False), ([MOOD, PET, CAT], True)):
        decided(driver, questions, joint=joint)
    assert {read.kept for read in driver.reads} == {driver.reads[0].kept}
    for read in driver.reads:
        assert text(read.prompt[: read.kept[0]]) == "<bos><|turn>user\nThe cat sat.\n\nQuestion"


def test_of_a_conversation_its_turns_are_kept():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    driver = Driver(surely)
    decided(driver, [CAT, PET], turns)
    for read in driver.reads:
        begun = "<bos><|turn>user\nHi<turn|>\n<|turn>model\nHello<turn|>\n<|turn>user\nQuestion"
        assert text(read.prompt[: read.kept[0]]) == begun
    assert text(driver.reads[0].prompt).endswith(
        "Question: Is it a cat?\nA: yes\nB: no\nAnswer with one letter.<turn|>\n<|turn>model\n"
    )


def test_behind_the_questions_are_kept_whatever_the_state():
    driver = Driver(surely)
    for state in ("The cat sat.", "a dog", "1 cow"):
        decided(driver, CAT, state, state="behind")
    kept = {read.prompt[: read.kept[0]] for read in driver.reads}
    assert len(kept) == 1
    assert text(kept.pop()).endswith("Answer with one letter.<turn|>\n<|turn>user\n")
    assert text(driver.reads[1].prompt).endswith("<|turn>user\na dog<turn|>\n<|turn>model\n")


def test_noise_is_a_function_of_the_prompt():
    driver = Driver(surely)
    for _ in range(2):
        decided(driver, [CAT, PET], reader="canvas")
    seeds = [read.seed for read in driver.reads if isinstance(read, CanvasRead)]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    assert all(0 <= seed < 2**53 for seed in seeds)
    alone = Driver(surely)
    decided(alone, PET, reader="canvas", seed=7)
    assert [read.seed for read in alone.reads if isinstance(read, CanvasRead)] == [7]
    decided(alone, PET, reader="canvas")
    assert alone.reads[1] == driver.reads[1]


def test_refusals_stand_beside_answers():
    broken = Refusal(question=None, name="b", code="invalid_question", reason="choices hold 'a' twice")
    many = choice("Which?", [str(n) for n in range(27)], name="many", form="label")
    driver = Driver(surely)
    found = decided(driver, [broken, CAT, many], joint=True)
    assert found.answers[0] is broken
    assert isinstance(found.answers[1], Answer)
    refused = found.answers[2]
    assert isinstance(refused, Refusal)
    assert (refused.name, refused.code) == ("many", "invalid_question")
    assert len(driver.reads) == 1
    assert decided(driver, [broken, broken]).stats.reads == 0


def test_options_by_their_own_text_in_the_causal_mode():
    tools = choice("Which?", ["play music", "stop"], form="text")
    driver = Driver(lambda *_: (0.05, 0.95), mass=0.25)
    answer, *_ = answers(decided(driver, tools, reader="causal", gate_nats=None))
    (read,) = driver.reads
    assert isinstance(read, CausalRead)
    spelled = [tokenizer().encode("play music"), tokenizer().encode("stop")]
    assert read.continuations == tuple((*ids, 5) for ids in spelled)
    assert read.token_ids == tuple(sorted({ids[0] for ids in spelled}))
    assert text(read.prompt).endswith(
        "Which?\n- play music\n- stop\nAnswer with one of these, word for word.<turn|>\n<|turn>model\n"
    )
    assert answer.probabilities == pytest.approx((0.05, 0.95))
    assert answer.label_mass == pytest.approx(0.25)


def test_what_a_reply_begins_with():
    names = ("PlayMusic", "GetWeather", "SearchCreativeWork")
    calls = tuple(Option(value=name, reply=f"<|tool_call>call:{name}{{") for name in names)
    question = Question(kind="choice", instructions="", options=calls, form="reply")
    driver = Driver(lambda *_: (0.05, 0.9, 0.05), mass=0.5)
    answer, *_ = answers(decided(driver, question, reader="causal", gate_nats=None))
    (read,) = driver.reads
    assert isinstance(read, CausalRead)
    assert read.prompt == prompt("The cat sat.")
    assert read.kept == (len(read.prompt) - 1,)
    assert read.continuations == tuple(tuple(tokenizer().encode(option.reply or "")) for option in calls)
    # mini writes a call's name and its first argument as one token: whatever goes on beyond the option counts.
    assert read.endings is not None
    for way, endings, call in zip(read.continuations, read.endings, calls, strict=True):
        assert len(endings) == len(way)
        assert way[-1] in endings[-1]
        ended = [text((*way[:place], token)) for place, tokens in enumerate(endings) for token in tokens]
        assert len(ended) > 1
        assert all(written.replace(" call", "call").startswith(call.reply or "") for written in ended)
    assert (answer.value, answer.confidence) == ("GetWeather", pytest.approx(0.9))
    assert answer.label_mass == pytest.approx(0.5)


def test_a_reply_on_a_canvas_is_noise_alone():
    calls = (Option(value="play", reply="<|tool_call>call:PlayMusic{"), Option(value="none", reply="No"))
    question = Question(kind="choice", instructions="", options=calls, form="reply")
    driver = Driver(lambda *_: (0.7, 0.3), mass=0.5)
    answer, *_ = answers(decided(driver, question, reader="canvas", second_reader=False))
    first, again = driver.reads
    assert isinstance(first, CanvasRead)
    assert isinstance(again, CanvasRead)
    assert (first.canvas, first.slots, first.draws, again.draws) == ((-1,) * 48, (), (0,), (1, 2, 3))
    assert first.texts is not None
    assert (first.texts.end_ids, len(first.texts.whole)) == ((), 2)
    assert again.prompt == first.prompt == prompt("The cat sat.")
    assert answer.probabilities == pytest.approx((0.7, 0.3))
    assert answer.label_mass == pytest.approx(0.5)


def test_options_by_their_own_text_on_a_canvas():
    pets = choice("Which pet?", ["a cat", "a dog", "a rather long answer"], form="text")
    driver = Driver(lambda read, draw, slot: [(0.2, 0.5, 0.3), (0.5, 0.3, 0.2)][draw])
    answer, *_ = answers(decided(driver, pets, reader="canvas", draws=2, gate_nats=None))
    (read,) = driver.reads
    assert isinstance(read, CanvasRead)
    assert read.canvas == (-1,) * 16
    assert read.texts is not None
    assert read.texts.end_ids == (5, 1)
    assert answer.probabilities == pytest.approx((0.35, 0.4, 0.25))
    # Looked at again, they are listed in other orders; what is read stays in the question's own.
    driver = Driver(lambda *_: (0.2, 0.5, 0.3))
    decided(driver, pets, reader="canvas", more_draws=2, second_reader=False)
    listed = [re.findall(r"^- (.*)$", text(read.prompt), re.M)[0] for read in driver.reads]
    assert listed == ["a cat", "a dog", "a rather long answer"]
    assert {read.texts for read in driver.reads if isinstance(read, CanvasRead)} == {driver.reads[0].texts}


def test_texts_that_no_reading_tells_apart_are_refused():
    same = choice("Which?", [True, "true"], form="text")
    begun = Question(
        kind="choice", instructions="", form="reply", options=(Option(value="play"), Option(value="player"))
    )
    ended = choice("Which?", ["a<turn|>", "b"], form="text")
    reasons = [
        answer.reason
        for answer in decided(Driver(surely), [same, begun, ended], reader="causal").answers
        if isinstance(answer, Refusal)
    ]
    assert reasons == [
        "choices hold two that are written 'true': no text tells them apart",
        "choices hold 'play', which 'player' begins with: a reply that does may be either",
        "choices hold 'a<turn|>', which is no text that this model can write",
    ]


def test_levels_by_their_own_text_are_called_levels():
    levels = (Option(value="low"), Option(value="a<turn|>"))
    ended = Question(kind="score", instructions="How?", options=levels, form="text")
    begun = Question(
        kind="score", instructions="", form="reply", options=(Option(value="play"), Option(value="player"))
    )
    huge = Question(
        kind="score", instructions="How?", form="text", options=(Option(value="a"), Option(value="b" * 60_000))
    )
    found = decided(Driver(surely), [ended, begun, huge], reader="canvas", of=known(max_context=200_000)).answers
    assert [each.reason.split()[0] for each in found if isinstance(each, Refusal)] == ["levels"] * 3


def test_a_model_without_a_canvas_is_read_by_the_causal_mode():
    bare = known(canvas_length=0)
    driver = Driver(torn)
    answer, *_ = answers(decided(driver, CAT, of=bare))
    assert {type(read) for read in driver.reads} == {CausalRead}
    assert answer.stages == ("causal", "draws")
    for options, said in (({"reader": "canvas"}, "reader must be 'causal'"), ({"joint": True}, "joint must be False")):
        with pytest.raises(OptionError, match=f"{said}: this model has no canvas"):
            decided(driver, CAT, of=bare, **options)
    with pytest.raises(OptionError, match="joint needs a canvas"):
        decided(driver, CAT, joint=True, reader="causal")
    with pytest.raises(OptionError, match="width must be at most this model's 48, got 64"):
        decided(driver, CAT, width=64)


@pytest.mark.parametrize("count", [0, 401])
def test_the_number_of_questions_is_bounded(count):
    with pytest.raises(QuestionError, match=f"questions must be 1 to 400, got {count}"):
        decided(Driver(surely), [CAT] * count)
