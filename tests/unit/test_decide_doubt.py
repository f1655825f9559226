"""Doubt: what is looked at again, how looks are put together, and what is left unanswered."""

from __future__ import annotations

import math
import re

import pytest

from deciding import Driver, answers, by_listing, decided, known, options_of, surely, text, torn
from redraft.core.calibration import Calibration
from redraft.core.decisions import Answer, Refusal
from redraft.core.errors import GenerationError, OptionError
from redraft.core.questions import DecideOptions, choice, predicate, score
from redraft.core.reads import CanvasRead, CausalRead, Read
from redraft.decide.calibration import bound_to, key_of
from redraft.decide.prompts import FORM

CAT = predicate("Is it a cat?", name="cat")
PET = choice("Which pet?", ["cat", "dog", "cow"], name="pet")
MOOD = score("How glad?", ["not", "some", "very"])
SURE = (0.99, 0.01)
TORN = (0.6, 0.4)


def test_what_is_clear_is_looked_at_once():
    driver = Driver(surely)
    answer, *_ = answers(decided(driver, CAT, reader="canvas"))
    assert len(driver.rounds) == 1
    assert (answer.stages, answer.draws, answer.spread, answer.doubts) == (("canvas",), 1, 0.0, ())
    assert answer.probabilities == pytest.approx((0.995, 0.005), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({}, ("canvas", "draws", "second reader")),
        ({"second_reader": False}, ("canvas", "draws")),
        ({"more_draws": 0}, ("canvas", "second reader")),
        ({"gate_nats": None}, ("canvas",)),
        ({"gate_nats": 0.7}, ("canvas",)),  # the entropy of (.6, .4) is .673
        ({"gate_nats": 0.67}, ("canvas", "draws", "second reader")),
        ({"reader": "causal"}, ("causal", "draws", "second reader")),
        ({"reader": "auto"}, ("causal", "draws", "second reader")),
    ],
)
def test_what_is_above_the_gate_goes_through_the_stages(options, stages):
    answer, *_ = answers(decided(Driver(lambda *_: TORN), CAT, **{"reader": "canvas", **options}))
    assert answer.stages == stages
    gate = options.get("gate_nats", 0.1)
    assert answer.doubts == (("entropy",) if gate is not None and gate < 0.673 else ())


def test_orders_map_back_to_the_options():
    weights = {"cat": 0.2, "dog": 0.5, "cow": 0.3}
    for reader in ("canvas", "causal"):
        driver = Driver(by_listing(weights))
        answer, *_ = answers(decided(driver, PET, reader=reader))
        listings = {tuple(re.findall(r"^[A-C]: (\w+)", text(read.prompt), re.M)) for read in driver.rounds[1]}
        assert listings == {("dog", "cow", "cat"), ("cow", "cat", "dog"), ("cat", "dog", "cow")} - (
            {("cat", "dog", "cow")} if reader == "causal" else set()
        )
        assert answer.probabilities == pytest.approx(tuple(weights.values()), abs=1e-12)
        assert answer.spread == pytest.approx(0, abs=1e-12)


def test_orders_even_out_what_a_letter_has_ahead():
    driver = Driver(by_listing({}, "A"))
    answer, *_ = answers(decided(driver, PET, reader="canvas", more_draws=2, second_reader=False))
    assert answer.probabilities == pytest.approx((1 / 3,) * 3)
    assert answer.spread == pytest.approx(10 / 12 - 1 / 12)
    pairs = choice("Which pet?", ["cat", "dog"])
    answer, *_ = answers(decided(driver, pairs, reader="canvas", second_reader=False))
    assert answer.probabilities == pytest.approx((0.5, 0.5))
    assert answer.draws == 4


def test_fixed_labels_are_only_drawn_again():
    driver = Driver(torn)
    decided(driver, MOOD, reader="canvas", draws=2, more_draws=3, second_reader=False)
    first, again = driver.reads
    assert isinstance(first, CanvasRead)
    assert isinstance(again, CanvasRead)
    assert (first.draws, again.draws) == ((0, 1), (2, 3, 4))
    assert (first.prompt, first.seed, first.canvas) == (again.prompt, again.seed, again.canvas)
    # The causal mode has no noise: there is nothing to look at again but by the canvas.
    causal = Driver(torn)
    answer, *_ = answers(decided(causal, MOOD, reader="causal"))
    assert [type(read) for read in causal.reads] == [CausalRead, CanvasRead]
    assert answer.stages == ("causal", "second reader")
    # What nobody could look at again was not.
    assert decided(Driver(torn), MOOD, reader="causal", second_reader=False).stats.reread == 0


def test_draws_are_averaged_as_probabilities_and_readers_half_and_half():
    canvas = [0.9, 0.5, 0.8, 0.2]

    def shares(read: Read, draw: int, slot: int) -> tuple[float, ...]:
        p = canvas[draw] if isinstance(read, CanvasRead) else 0.3
        return (p, (1 - p) * 0.25, (1 - p) * 0.75)

    answer, *_ = answers(decided(Driver(shares, mass=0.5), MOOD, reader="canvas"))
    p = (0.6 + 0.3) / 2
    assert answer.raw == answer.probabilities == pytest.approx((p, (1 - p) * 0.25, (1 - p) * 0.75))
    assert answer.spread == pytest.approx(0.9 - 0.2)
    assert answer.label_mass == pytest.approx(0.5)
    assert answer.draws == 4
    assert answer.doubts == ("entropy", "disagreement")


def test_doubtful_questions_of_a_canvas_are_looked_at_among_themselves():
    def shares(read: Read, draw: int, slot: int) -> tuple[float, ...]:
        asked = re.split(r"Question(?: \d+)?: ", text(read.prompt))[1:][slot]
        return torn(read, draw, slot) if "sure" in asked else surely(read, draw, slot)

    clear = [predicate(f"Clear {n}?") for n in range(3)]
    driver = Driver(shares)
    found = decided(driver, [clear[0], predicate("sure 1?"), clear[1], predicate("sure 2?")], joint=True)
    assert [answer.stages for answer in answers(found)] == [("canvas",), ("canvas", "draws", "second reader")] * 2
    for read in driver.rounds[1]:
        assert re.findall(r"Question \d: (\S+ \d)", text(read.prompt)) == ["sure 1", "sure 2"]
    assert [read.draws for read in driver.rounds[1] if isinstance(read, CanvasRead)] == [(1, 3), (2,)]
    assert [type(read) for read in driver.rounds[2]] == [CausalRead, CausalRead]
    # A single one goes by itself.
    driver = Driver(shares)
    decided(driver, [*clear, predicate("sure 1?")], joint=True)
    assert [text(read.prompt).count("Question: sure 1?") for read in driver.rounds[1]] == [1, 1]
    assert found.stats.reread == 2


def test_an_answer_is_left_out_for_each_of_the_reasons():
    low = decided(Driver(surely, mass=0.02), CAT, reader="canvas", least_mass=0.5)[0]
    assert isinstance(low, Refusal)
    assert (low.code, low.reason, low.name) == ("abstained", "label mass 0.02 is below 0.5", "cat")
    assert low.answer is not None
    assert low.answer.doubts == ("label mass",)
    unsure = decided(Driver(lambda *_: TORN), CAT, least_confidence=0.8)[0]
    assert isinstance(unsure, Refusal)
    assert unsure.reason == "confidence 0.6 is below 0.8"

    def split(read: Read, draw: int, slot: int) -> tuple[float, ...]:
        return (0.8, 0.2) if isinstance(read, CausalRead) else (0.3, 0.7)

    assert isinstance(decided(Driver(split), CAT)[0], Answer)
    torn_apart = decided(Driver(split), CAT, agree=True)
    assert isinstance(torn_apart[0], Refusal)
    assert torn_apart[0].reason == "the canvas and the causal mode disagree"
    assert torn_apart.stats.abstained == 1


def test_a_calibration_counts_and_another_ones_is_refused():
    asked = {"reader": "canvas", "gate_nats": None}
    bound = bound_to(known(), DecideOptions(**asked))
    fitted = Calibration(
        temperatures={key_of(CAT): 2.0, "choice": 0.5},
        thresholds={"predicate": 0.95},
        questions=(key_of(CAT), key_of(PET), key_of(MOOD)),
        bound_to=bound,
    )
    three = (0.9, 0.05, 0.05)
    driver = Driver(lambda read, draw, slot: SURE if options_of(read, slot) == 2 else three)
    cat, pet, mood = decided(driver, [CAT, PET, MOOD], calibration=fitted, **asked).answers
    root = math.sqrt(0.99) / (math.sqrt(0.99) + math.sqrt(0.01))
    assert isinstance(cat, Refusal)
    assert cat.answer is not None
    assert cat.answer.probabilities == pytest.approx((root, 1 - root))
    assert cat.answer.raw == pytest.approx(SURE)
    assert cat.reason == "confidence 0.909 is below 0.95"
    assert isinstance(pet, Answer)
    assert isinstance(mood, Answer)
    assert pet.probabilities[0] == pytest.approx(0.81 / (0.81 + 2 * 0.0025))
    assert (pet.calibrated, mood.calibrated) == (True, False)
    assert mood.probabilities == mood.raw
    with pytest.raises(OptionError, match="calibration .* found with draws 1, here it is 2"):
        decided(driver, CAT, calibration=fitted, draws=2, **asked)
    other = known(identity={**known().identity, "quantize": "int8"})
    with pytest.raises(OptionError, match="found with model.quantize None, here it is 'int8'"):
        decided(driver, CAT, of=other, calibration=fitted, **asked)
    assert bound["form"] == FORM


def test_readings_that_are_no_numbers_are_an_error():
    driver = Driver(lambda *_: (math.nan, 0.5))
    with pytest.raises(GenerationError, match="no numbers"):
        decided(driver, CAT)
    # Nothing that a canvas could hold is no error: no option is likelier than another.
    answer, *_ = answers(decided(Driver(lambda *_: (0.0, 0.0)), CAT, gate_nats=None))
    assert (answer.probabilities, answer.label_mass) == ((0.5, 0.5), 0.0)
