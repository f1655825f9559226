"""The stop by a canvas's text: what counts, how long it has stood, and a canvas that has collapsed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import redraft
from redraft.core.errors import OptionError
from redraft.core.options import GenerationOptions
from redraft.engine.canvas import CanvasState
from redraft.engine.progress import take
from redraft.engine.sequence import Costs
from redraft.sampler.advance import Canvases, Found, TextStop
from redraft.sampler.stop import new_history
from redraft.sampler.text_stop import (
    LONGEST_SPAN,
    REPEATED,
    REPEATED_TOKENS,
    done_by_text,
    repeats,
    same_text,
    text_places,
)

END, OTHER_END, L = 1, 5, 6
TEXT = torch.tensor([7, 8, 9, END, 0, 0])
# What lies behind the end is unsure, and no part of the text.
SURE = torch.tensor([0.01, 0.02, 0.03, 0.04, 3.0, 3.0])
REFERENCE = {"settled_nats": 0.0, "settled_steps": 0}


def stops(steps: list[tuple[torch.Tensor, torch.Tensor]], pinned: torch.Tensor | None = None, **options) -> list[bool]:
    """Whether a canvas is done at each of these (argmax, entropy)."""
    sequence: Any = SimpleNamespace(
        options=GenerationOptions(**options), reply=SimpleNamespace(end_ids=frozenset({END, OTHER_END})), costs=Costs()
    )
    length = len(steps[0][0])
    row = torch.zeros(1, length)
    state = CanvasState(
        number=0, tokens=steps[0][0], history=new_history(sequence.options.stability_threshold, 1, length, row.device),
        uniform=row, noise=row.long(), pinned=pinned,
    )  # fmt: skip
    return [take(sequence, state, argmax, entropy) for argmax, entropy in steps]


def on_a_graph(steps: list[tuple[torch.Tensor, torch.Tensor]], **options) -> list[bool]:
    """The same, as a launch says it."""
    given = GenerationOptions(**options)
    length = len(steps[0][0])
    canvases = Canvases.empty(1, length, given.stability_threshold, 4, torch.device("cpu"))
    canvases.confidence[0] = given.confidence_threshold
    ends = (END, OTHER_END)
    canvases.place_stop(0, TextStop(end_ids=ends))
    found = []
    for step, (argmax, entropy) in enumerate(steps):
        zero = torch.zeros(1, length)
        canvases.advance(Found(argmax=argmax[None], sample=argmax[None], entropy=entropy[None], best_log_prob=zero))
        settled, *_, stood, left = canvases.verdict[:, 0].tolist()
        found.append(bool(settled) or done_by_text(int(stood), left, step, given))
    return found


@pytest.mark.parametrize("done", [stops, on_a_graph])
def test_what_lies_behind_the_end_counts_for_nothing(done):
    changing = [(torch.cat([TEXT[:4], torch.tensor([step, step])]), SURE) for step in range(20, 24)]
    assert done(changing, settled_nats=0.11) == [False, True, True, True]
    assert done(changing, settled_nats=0.09) == [False] * 4
    assert done(changing, **REFERENCE) == [False] * 4


@pytest.mark.parametrize("done", [stops, on_a_graph])
def test_a_text_that_has_stood_is_done_however_unsure(done):
    unsure = [(TEXT, SURE + 1)] * 6
    assert done(unsure, settled_nats=0.0, settled_steps=3) == [False] * 3 + [True] * 3
    assert done(unsure, **REFERENCE) == [False] * 6
    turned = [(TEXT, SURE + 1)] * 2 + [(TEXT + (TEXT == 8), SURE + 1)] * 4
    assert done(turned, settled_nats=0.0, settled_steps=3) == [False] * 5 + [True]


@pytest.mark.parametrize("done", [stops, on_a_graph])
def test_in_the_last_third_of_the_schedule_a_text_that_stands_is_done(done):
    steps = [(torch.where(TEXT == 8, 20 + step // 2, TEXT), SURE + 1) for step in range(12)]
    late = [False] * 9 + [True, False, True]
    assert done(steps, max_denoising_steps=12)[:11] == late[:11]
    assert done(steps, max_denoising_steps=12, settled_steps=0)[:11] == [False] * 11


@pytest.mark.parametrize("done", [stops, on_a_graph])
def test_ends_are_all_alike_and_a_text_must_stand_for_the_threshold(done):
    other = torch.where(TEXT == END, OTHER_END, TEXT)
    assert done([(TEXT, SURE), (other, SURE)]) == [False, True]
    assert done([(TEXT, SURE)] * 4, stability_threshold=2) == [False, False, True, True]
    assert done([(TEXT, SURE)] * 2, stability_threshold=0) == [True, True]


@pytest.mark.parametrize("done", [stops, on_a_graph])
def test_what_is_no_number_does_not_stop_a_canvas_that_changes(done):
    steps = [(TEXT + step, SURE * torch.nan) for step in range(0, 40, 10)]
    assert done(steps) == [False] * 4


def test_pinned_positions_count_for_nothing():
    pinned = torch.tensor([-1, 8, -1, -1, -1, -1])
    unsure = torch.tensor([0.01, 9.0, 0.01, 0.01, 0.0, 0.0])
    assert stops([(TEXT, unsure)] * 2, pinned, settled_nats=0.1) == [False, True]
    assert stops([(TEXT, unsure)] * 2, settled_nats=0.1) == [False, False]


def test_a_sum_means_the_same_at_every_length():
    """One coin flip in a sure canvas, short or long."""
    for length in (24, 48, 256):
        entropy = torch.zeros(length)
        entropy[3] = 0.69
        steps = [(torch.arange(length) + 100, entropy)] * 2
        assert stops(steps, settled_nats=0.7)[-1]
        assert not stops(steps, settled_nats=0.68, settled_steps=0)[-1] or length == 256, "the reference's mean"


def test_a_canvas_that_has_collapsed_is_not_settled():
    length = 48
    collapsed = torch.tensor(([7, 8, 9] * length)[:length])
    sure = torch.full((length,), 0.01)
    assert not any(stops([(collapsed, sure)] * 20))
    assert stops([(collapsed, sure * 0.1)] * 2) == [False, True], "the reference's rule asks for no more than it did"
    assert stops([(torch.arange(length) + 100, sure)] * 2) == [False, True]


def runs_by_hand(ids: list[int]) -> bool:
    """`repeats`, as it is said."""
    return any(
        all(ids[start + i] == ids[start + i + span] for i in range(covered - span))
        for span in range(1, LONGEST_SPAN + 1)
        for covered in [max(REPEATED * span, REPEATED_TOKENS)]
        for start in range(len(ids) - covered + 1)
    )


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(1, 20))
def test_spans_that_repeat(before, span, times):
    ids = [*before, *span * times, 11, 12]
    assert repeats(ids) == runs_by_hand(ids)


def test_texts_and_their_ends():
    ends = torch.tensor([[END, OTHER_END, -2]])
    assert text_places(TEXT[None], ends).tolist() == [[True] * 4 + [False] * 2]
    assert text_places(TEXT[None] + 20, ends).all()
    shorter = torch.tensor([7, 8, OTHER_END, 3, 0, 0])
    assert not same_text(TEXT[None], shorter[None], ends)
    assert not same_text(shorter[None], TEXT[None], ends)
    assert same_text(TEXT[None], torch.tensor([[7, 8, 9, OTHER_END, 4, 4]]), ends)


def test_to_want_nothing_of_canvases_is_no_mistake_where_there_are_none():
    habit = GenerationOptions().with_changes(handover_steps=6)
    assert habit.with_changes(mode="autoregressive", handover_steps=0).mode == "autoregressive"
    with pytest.raises(OptionError, match="handover_steps belongs to canvases"):
        habit.with_changes(mode="autoregressive", handover_steps=4)


def test_who_asks_for_the_references_rule_gets_that_alone():
    options = GenerationOptions()
    assert options.settled_nats
    assert options.settled_steps
    for change in ({"confidence_threshold": 0.01}, {"stability_threshold": 2}, {"preset": "reference"}):
        changed = options.with_changes(**change)
        assert (changed.settled_nats, changed.settled_steps) == (0, 0), change
    both = options.with_changes(confidence_threshold=0.01, settled_nats=0.5)
    assert (both.settled_nats, both.settled_steps) == (0.5, options.settled_steps)
    less = options.with_changes(handover_steps=6).with_changes(confidence_threshold=0.01, settled_steps=0)
    assert (less.settled_nats, less.settled_steps, less.handover_steps) == (0, 0, 0), "to ask for less brings nothing"
    assert options.with_changes(preset="fast").handover_steps > 0
    assert options.with_changes(confidence_threshold=0.005, preset="fast").handover_steps, "named beside it"
    habit = options.with_changes(handover_steps=6)
    assert habit.with_changes(stability_threshold=2).handover_steps == 0
    assert habit.with_changes(preset="reference").handover_steps == 0


def test_mini_takes_half_the_steps_and_the_reference_is_one_option_away():
    engine = redraft.load("mini", threads=1)
    prompts = [
        "add Nina Simone to my Sunday morning playlist", "what is the weather in Paris tomorrow",
        "find the movie schedule close by", "book a table for four near the park", "play the newest track by Eminem",
        "rate the current album a two", "where can i see the dark knight",
    ]  # fmt: skip
    plain = [engine.generate(prompt, seed=seed) for seed, prompt in enumerate(prompts)]
    reference = [engine.generate(prompt, seed=seed, confidence_threshold=0.005) for seed, prompt in enumerate(prompts)]
    steps = [sum(reply.stats.denoising_steps for reply in replies) for replies in (plain, reference)]
    assert steps[0] < steps[1] / 2
    assert [reply.text for reply in plain] == [reply.text for reply in reference]
