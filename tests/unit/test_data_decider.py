"""A decider's data: what is asked is right, is put as it is put to a model, and is the same wherever it is made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from raw_files import clinc_file
from redraft.core.datasets import CLINC150
from redraft.data import decider, published
from redraft.data.asked import SLOTS, Asker, Request
from redraft.data.decider import NONE, part_of
from redraft.data.draws import Draws
from redraft.data.mini import held_out
from redraft.data.skills import CALLS, DOMAINS, EVERY_SKILL, INTENTS, SKILLS
from redraft.decide.prompts import messages
from redraft.decide.state import State
from redraft.train.recipe import read_recipe

ROOT = Path(__file__).parents[2]
CITIES = ("Berlin", "Rome", "Oslo", "Lima", "Quito", "Cairo", "Delhi", "Perth")
ARTISTS = ("Air", "Björk", "Can", "Devo", "Eels", "Feist")


def calling(text, name, **arguments):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "tool_calls": [call]}]}


TIMES = tuple(f"at {n} {half}" for n in (1, 2, 3) for half in ("am", "pm"))
SNIPS = [
    *(calling(f"will it rain in {c} at {n} pm", "GetWeather", city=c, timeRange=f"at {n} pm")
      for c in CITIES for n in range(1, 9)),
    *(calling(f"play number {n} by {a}", "PlayMusic", artist=a) for a in ARTISTS for n in range(8)),
    *(calling(f"give this book {n} points, {word}", "RateBook", rating_value=str(n))
      for n in range(7) for word in ("please", "now", "today")),
    *(calling(f"a table for {n} in {c}", "BookRestaurant", party_size_number=n, city=c)
      for c in CITIES for n in ("two", "6", "nine")),
]  # fmt: skip
CLINC = [
    *({"text": f"how much money do i have in account {n}", "intent": "balance"} for n in range(60)),
    *({"text": f"flip coin number {n}", "intent": "flip_coin"} for n in range(60)),
    *({"text": f"how tall is mountain {n}", "intent": "oos"} for n in range(60)),
]
FILES = decider.split(SNIPS, CLINC)


def asker(**changes):
    values = {"city": list(CITIES), "artist": list(ARTISTS), "timeRange": ["at 1 am", "at 2 am", "at 3 am"]}
    return Asker(**{"values": values, "missing": 0.0} | changes)


RAIN = Request(
    text="will it rain in Berlin at 2 pm", skill="weather forecast", domain="weather", call="GetWeather",
    arguments={"city": "Berlin", "timeRange": "at 2 pm"},
)  # fmt: skip
BOOK = Request(
    text="four points for this", skill="rate a book", domain="books and films", call="RateBook",
    arguments={"rating_value": "four"},
)  # fmt: skip
TABLE = Request(
    text="a table for 7", skill="book a restaurant", domain="food", call="BookRestaurant",
    arguments={"party_size_number": "7"},
)  # fmt: skip
COIN = Request(text="flip a coin", skill="flip a coin", domain="everyday tools")
OTHER = Request(text="how tall is it")


def many(ask, request, count=200):
    found = [ask(request, Draws(str(n))) for n in range(count)]
    return [asked for asked in found if asked is not None]


def value_of(asked):
    return None if asked.answer is None else asked.question.options[asked.answer].value


@pytest.mark.parametrize(
    ("ask", "request_", "right"),
    [
        (Asker.skill, RAIN, {"weather forecast"}),
        (Asker.skill, COIN, {"flip a coin"}),
        (Asker.domain, COIN, {"everyday tools"}),
        (Asker.call, BOOK, {"RateBook"}),
        (Asker.value, RAIN, {"Berlin", "at 2 pm"}),
        (Asker.slot, RAIN, {"city", "time"}),
        (Asker.rating, BOOK, {"good"}),
        (Asker.party, TABLE, {"more than six"}),
        (Asker.length, COIN, {"short"}),
        (Asker.length, RAIN, {"medium"}),
        (Asker.details, RAIN, {"two things or more"}),
        (Asker.details, TABLE, {"nothing"}),
        (Asker.skill, OTHER, {None}),
        (Asker.domain, OTHER, {None}),
    ],
)
def test_the_right_option_is_right(ask, request_, right):
    found = many(lambda *given: ask(asker(), *given), request_)
    assert {value_of(asked) for asked in found} == right


def test_every_place_is_as_likely_to_be_right():
    found = [asked for asked in many(asker().skill, COIN, 4000) if len(asked.question.options) == 4]
    counts = Counter(asked.answer for asked in found)
    assert len(found) > 300
    assert all(0.18 < counts[place] / len(found) < 0.32 for place in range(4))


def test_options_that_are_wrong_are_wrong():
    for asked in many(asker().value, RAIN):
        others = [option.text for option in asked.question.options if option.value != value_of(asked)]
        assert not [text for text in others if text.lower() in RAIN.text.lower()]
    for asked in many(asker(missing=1.0).skill, COIN):
        assert asked.answer is None or len(asked.question.options) == 2
        assert asked.answer is not None or COIN.skill not in asked.question.values


@pytest.mark.parametrize(
    ("ask", "request_", "true", "words"),
    [
        (Asker.is_about, COIN, {"everyday tools"}, DOMAINS),
        (Asker.is_for, COIN, {"flip a coin"}, EVERY_SKILL),
        (Asker.names, RAIN, {"city", "time"}, SLOTS.values()),
        (Asker.is_value, RAIN, {"Berlin", "at 2 pm"}, (*CITIES, *TIMES)),
    ],
)  # fmt: skip
def test_yes_is_yes(ask, request_, true, words):
    answers = []
    for asked in many(lambda *given: ask(asker(), *given), request_):
        text = asked.question.instructions
        # The longest: "the home" is one subject, and "home" might be in another.
        said = max(
            (word for word in words if re.search(rf"\b{re.escape(word)}\b", text)),
            key=lambda w: (text.endswith(f"{w}?"), len(w)),
        )
        answers.append(value_of(asked))
        assert answers[-1] == (said in true), asked
    assert 0.3 < sum(answers) / len(answers) < 0.7


def test_parts_are_disjoint_and_follow_the_text():
    states = {name: {row["state"] for row in FILES[f"{name}.jsonl"]} for name in ("dev", "test", "scope")}
    taught = {m["content"] for row in FILES["train.jsonl"] for m in row["messages"]}
    assert states["dev"]
    assert states["test"]
    assert not states["dev"] & states["test"]
    assert all(held_out(text) for part in states.values() for text in part)
    assert {part_of(text) for text in states["dev"]} == {"dev"}
    assert {part_of(text) for text in states["test"] | states["scope"]} == {"test"}
    held = [text for part in states.values() for text in part]
    assert not [content for content in taught for text in held if text == content or f"{text}\n" in content]


def is_open(row) -> bool:
    return "Answer in a few words." in row["messages"][0]["content"]


def test_a_question_without_options_is_answered_with_what_is_right():
    rows = [decider.taught(replace(COIN, text=f"{COIN.text} {n}"), asker()) for n in range(60)]
    found = {row["messages"][1]["content"] for row in rows if is_open(row)}
    assert found == {COIN.skill, COIN.domain}


def test_prompts_are_put_as_decide_puts_them(monkeypatch):
    made = []

    def noted(state, puts, **how):
        made.append(messages(state, puts, **how))
        assert how["joint"] or len(puts) == 1
        assert isinstance(state, State)
        return made[-1]

    monkeypatch.setattr(decider, "messages", noted)
    rows = [
        decider.taught(replace(request, text=f"{request.text} {n}"), asker())
        for request in (RAIN, COIN)
        for n in range(9)
    ]
    assert [row["messages"][:-1] for row in rows if not is_open(row)] == made
    assert {row["messages"][-1]["role"] for row in rows} == {"assistant"}
    assert {len(row["messages"]) for row in rows} == {2, 3}


def test_answers_are_labels_of_what_is_asked():
    kinds = Counter()
    for row in FILES["train.jsonl"]:
        *asked, reply = row["messages"]
        asked = next(m["content"] for m in asked if "Answer " in m["content"])
        lines = reply["content"].split("\n")
        if "Write a line for each question" in asked:
            assert [line.split(": ")[0] for line in lines] == [str(n) for n in range(1, len(lines) + 1)]
            lines = [line.split(": ")[1] for line in lines]
        blocks = re.split(r"(?:^|\n\n)Question[^\n]*", asked)[1:]
        assert len(blocks) == len(lines)
        for block, answer in zip(blocks, lines, strict=True):
            how = re.search(
                r"Answer (yes or no|with one letter|with one number|with one of these, word for word|in a few words)\.",
                block,
            )[1]
            kinds[how, answer == NONE] += 1
            if how == "in a few words":
                assert block.count("\n") == 1, "no option is told"
                continue
            listed = re.findall(r"^- (.*)" if "these" in how else r"^([A-Z]|\d): ", block, re.MULTILINE)
            assert answer in (("yes", "no") if how == "yes or no" else (*listed, NONE))
            assert len(listed) >= (0 if how == "yes or no" else 2)
    assert kinds["with one letter", True] > 20
    assert not kinds["yes or no", True]
    assert min(kinds["yes or no", False], kinds["with one number", False], kinds["with one letter", False]) > 30
    assert kinds["with one of these, word for word", False] > 50
    assert kinds["in a few words", False] > 30
    assert not kinds["in a few words", True]


def test_a_letter_stands_for_what_is_right():
    """Read back from the prompt's own lines, in whatever order they stand."""
    letters = Counter()
    for n in range(300):
        row = decider.taught(replace(COIN, text=f"{COIN.text} {n}"), asker())
        *asked, reply = row["messages"]
        text = next(m["content"] for m in asked if "Question" in m["content"])
        lines = reply["content"].split("\n")
        for block, line in zip(re.split(r"(?:^|\n\n)Question", text)[1:], lines, strict=True):
            answer, offered = line.split(": ")[-1], dict(re.findall(r"^([A-Z]): (.*)", block, re.MULTILINE))
            if offered:
                letters[answer] += 1
                assert offered[answer] in (COIN.skill, COIN.domain)
            elif "one of these" in block:
                assert answer in (COIN.skill, COIN.domain)
    assert len(letters) > 4


def test_labelled_rows_name_their_answers():
    for name in ("dev.jsonl", "test.jsonl"):
        for row in FILES[name]:
            assert [question["name"] for question in row["questions"]] == list(row["answers"])
            for question in row["questions"]:
                answer = row["answers"][question["name"]]
                if question["type"] == "predicate":
                    assert answer in (True, False)
                elif question["type"] == "choice":
                    assert {"value": answer} in question["choices"]
                else:
                    assert answer in range(len(question["levels"]))
    assert FILES["scope.jsonl"]
    assert {answer for row in FILES["scope.jsonl"] for answer in row["answers"].values()} == {None}


def test_rows_are_the_same_in_every_process():
    """The seed of hashes decides nothing."""
    program = "from unit.test_data_decider import FILES; import json; print(json.dumps(FILES))"
    paths = [str(ROOT / "src"), str(ROOT / "tests")]
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {program}"],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert json.loads(found.stdout) == FILES


def test_the_order_of_the_requests_decides_nothing():
    again = decider.split(SNIPS[::-1], CLINC[::-1])
    assert again != FILES
    for name, rows in again.items():
        assert sorted(map(json.dumps, rows)) == sorted(map(json.dumps, FILES[name]))


def test_every_intent_has_words_of_its_own():
    assert len(INTENTS) == 150
    assert {domain for _, domain in (*INTENTS.values(), *CALLS.values())} == set(DOMAINS) == set(SKILLS)
    shared = [words for words, count in Counter(words for words, _ in INTENTS.values()).items() if count > 1]
    assert not shared
    assert len(set(EVERY_SKILL)) == len(EVERY_SKILL)
    rows = published.clinc150(clinc_file(train=[["a", "balance"]], oos_val=[["b", "oos"]]))
    assert [decider._of_clinc150(row).skill for row in rows] == ["account balance", None]
    assert CLINC150.files


def test_the_recipes_load():
    first, second = (read_recipe(ROOT / "recipes" / "decider" / f"{name}.yaml", []) for name in ("decider", "second"))
    assert first.model is not None
    assert first.model.canvas_length == 48
    assert [source.path.name for each in (first, second) for source in each.data] == ["first.jsonl", "train.jsonl"]
    assert (ROOT / "recipes" / "decider" / second.init).resolve() == (first.output / "model").resolve()


def test_draws_are_even_and_without_repetition():
    draws = Draws("even")
    counts = Counter(draws.below(7) for _ in range(7000))
    assert all(850 < counts[value] < 1150 for value in range(7))
    assert [Draws("a", "b").below(2**60) for _ in range(2)] == [Draws("a", "b").below(2**60)] * 2
    assert Draws("a", "b").below(2**60) != Draws("ab").below(2**60)
    for count in (0, 3, 20):
        chosen = draws.some(range(20), count)
        assert len(set(chosen)) == len(chosen) == count
    firsts = Counter(tuple(draws.some("abc", 2)) for _ in range(6000))
    assert len(firsts) == 6
    assert all(850 < count < 1150 for count in firsts.values())
