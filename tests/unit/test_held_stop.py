"""When a canvas under a constraint stops: its text stands and is sure, or the model is against it for good."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import redraft
from redraft.core.options import GenerationOptions
from redraft.engine.canvas import CanvasState
from redraft.engine.progress import advance
from redraft.engine.sequence import Costs
from redraft.kernels.head_stats import HeadStats
from redraft.sampler.held_stop import (
    AGAINST_STEPS,
    PARTLY_STEPS,
    HeldStep,
    Standstill,
    against,
    as_text,
    free_places,
    text_length,
)
from redraft.sampler.stop import new_history

END, OTHER_END = 1, 5
ENDS = frozenset({END, OTHER_END})
L = 6
TEXT = torch.tensor([7, 8, END, END, OTHER_END, END])
# Of the text, one place is forced, one is free and its end is sure; behind it nothing is.
LOCAL = torch.tensor([0.0, 0.8, 1e-6, 0.7, 0.7, 0.7])
SURE = torch.tensor([0.0, 0.002, 1e-6, 0.7, 0.7, 0.7])


def step_of(*, own=TEXT, entropy=SURE, local=LOCAL, own_entropy=0.5) -> HeldStep:
    return HeldStep(own=own, own_entropy=torch.full((L,), own_entropy), entropy=entropy, local=local)


def test_a_text_goes_to_its_end_or_to_its_budget():
    assert text_length(TEXT, ENDS, 100) == 3
    assert text_length(TEXT, ENDS, 2) == 2
    assert text_length(TEXT, frozenset(), 100) == L


def test_canvases_are_equal_where_their_texts_are():
    other = torch.tensor([7, 8, OTHER_END, 3, 3, 3])
    assert torch.equal(as_text(TEXT, 3, ENDS), as_text(other, 3, ENDS))
    assert not torch.equal(as_text(TEXT, 3, ENDS), as_text(torch.tensor([7, 8, 9, END, END, END]), 4, ENDS))
    empty = as_text(torch.full((L,), END), 1, ENDS)
    assert not (empty[None] == new_history(1, 1, L, torch.device("cpu"))[0]).any(), "what was never seen equals nothing"


def test_what_is_forced_or_behind_the_end_is_not_free():
    assert free_places(step_of(), 3).tolist() == [1, 2]
    assert free_places(step_of(), L).tolist() == [1, 2, 3, 4, 5]


def test_ends_are_all_alike_where_the_model_disagrees():
    own = torch.tensor([7, 9, OTHER_END, 3, 3, 3])
    assert against(step_of(own=own), TEXT, torch.tensor([0, 1, 2]), ENDS).tolist() == [False, True, False]
    assert against(step_of(own=TEXT), own, torch.tensor([2, 3]), frozenset()).tolist() == [True, True]


def sequence_of(**options) -> Any:
    """As much of a request as the end of a step looks at."""
    reply = SimpleNamespace(end_ids=ENDS)
    options = {"settled_nats": 0.0, "settled_steps": 0, **options}
    return SimpleNamespace(options=GenerationOptions(**options), reply=reply, room=lambda: 100, costs=Costs())


def stops(step: HeldStep, argmax: torch.Tensor = TEXT, **options) -> list[bool]:
    """Whether the canvas is done, at each of three equal steps."""
    sequence, row = sequence_of(**options), torch.zeros(1, L)
    state = CanvasState(
        number=0, tokens=argmax, history=new_history(1, 1, L, row.device), uniform=row, noise=row.long(), held=step
    )
    stats = HeadStats(
        argmax=argmax[None], sample=argmax[None], entropy=row + 0.9, log_prob=row, best_log_prob=row,
        soft_embedding=row[..., None], dropped_mass=row,
    )  # fmt: skip
    return [advance(sequence, state, stats, argmax[None], 0) for _ in range(3)]


def test_the_stop_looks_at_the_free_positions_of_the_text_only():
    assert stops(step_of()) == [False, True, True], "what lies behind the end is unsure, and no part of the text"
    unsure = SURE.clone()
    unsure[1] = 0.02
    assert unsure[:3].mean() > 0.005
    assert not any(stops(step_of(entropy=unsure)))
    # Whatever else is sure: three forced places do not make up for it.
    longer, sure = torch.tensor([7, 7, 7, 7, 8, END]), torch.tensor([0.0, 0.0, 0.0, 0.0, 0.012, 1e-6])
    assert sure.mean() < 0.005
    assert not any(stops(step_of(own=longer, entropy=sure, local=sure), longer))


def test_a_text_of_which_nothing_is_free_is_done_once_it_stands():
    nothing = torch.zeros(L)
    assert stops(step_of(entropy=nothing, local=nothing)) == [False, True, True]
    assert not any(stops(step_of(entropy=nothing, local=nothing), confidence_threshold=0.0))


def verdicts(shares, entropies=None, *, texts=None, own_entropy=0.5, stability_threshold=1, confidence_threshold=0.005):
    """What a standstill says of steps with these shares, mean entropies and texts."""
    standstill, step, found = Standstill(), step_of(own_entropy=own_entropy), []
    texts, stood = [0] * len(shares) if texts is None else list(texts), 0
    for place, share in enumerate(shares):
        stood = stood + 1 if place and texts[place] == texts[place - 1] else 0
        found.append(
            standstill.is_for_good(
                replace(step, own=TEXT),
                share=share,
                mean_entropy=1.0 if entropies is None else entropies[place],
                stood=stood,
                stability_threshold=stability_threshold,
                confidence_threshold=confidence_threshold,
            )
        )
    return found


def first(found: list[bool]) -> int | None:
    """Steps until it stops."""
    return found.index(True) + 1 if True in found else None


def test_a_model_that_does_not_come_round_is_not_waited_for():
    assert first(verdicts([0.8] * 20)) == AGAINST_STEPS + 1
    assert first(verdicts([0.8] * 20, texts=range(20))) == AGAINST_STEPS + 1, "its text need not stand: it never will"
    assert first(verdicts([0.8] * 20, stability_threshold=5)) == 6
    assert first(verdicts([0.8] * 20, own_entropy=0.001)) == 2, "as soon as it would be done if it were free"
    assert first(verdicts([0.8] * 20, own_entropy=0.001, confidence_threshold=0.0)) is None


@pytest.mark.parametrize(
    ("shares", "entropies"),
    [
        ([0.9 - 0.02 * i for i in range(20)], [1.0] * 20),
        ([0.9] * 20, [0.49**i for i in range(20)]),
        ([0.9, 0.9, 0.2, *[0.0] * 17], [1.0] * 20),
    ],
    ids=["agrees more and more", "becomes sure", "has come round"],
)
def test_a_model_that_comes_round_is_waited_for(shares, entropies):
    assert first(verdicts(shares, entropies)) is None


def test_an_entropy_that_falls_with_the_temperature_is_no_progress():
    assert first(verdicts([0.9] * 20, [0.98**i for i in range(20)])) == AGAINST_STEPS + 1


def test_where_the_model_means_most_of_it_the_text_must_stand():
    assert first(verdicts([0.2] * 20)) == PARTLY_STEPS + 1
    assert first(verdicts([0.2] * 20, texts=[i // 3 for i in range(20)])) is None
    assert first(verdicts([0.05] * 20)) is None, "a place or two may change however late"


@pytest.fixture(scope="module")
def mini():
    return redraft.load("mini", dtype="float32", threads=1)


FORMS = [
    {"type": "choice", "choices": ["yes please", "no"]},
    {"type": "json_schema", "schema": {"enum": ["sunny", "cloudy", "rainy"]}},
    {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "rain": {"type": "boolean"}},
            "required": ["city", "rain"],
            "additionalProperties": False,
        },
    },
]


@pytest.mark.parametrize("form", FORMS, ids=["choice", "enum", "object"])
@pytest.mark.parametrize("text", ["what is the weather like in Oslo tomorrow", "Play the new Daft Punk album"])
def test_a_form_against_the_model_stops_and_says_so(mini, form, text):
    got = mini.generate(text, seed=0, response_format=form)
    assert got.finish_reason == "stop"
    assert got.stats.denoising_steps <= 8
    assert 0 < got.stats.disagreements <= len(got.token_ids)
    assert "against the model" in str(got.stats)


def test_a_call_that_the_model_means_has_no_disagreements(mini):
    got = mini.generate("what is the weather in Paris", seed=0)
    assert got.tool_calls
    assert got.stats.disagreements == 0
    assert "against" not in str(got.stats)


def test_a_confidence_of_zero_still_takes_every_step(mini):
    got = mini.generate("play jazz", seed=0, response_format=FORMS[0], confidence_threshold=0, max_denoising_steps=12)
    assert got.stats.denoising_steps == 12
