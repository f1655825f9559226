"""Every mode on an Apple GPU that is not there: one that has neither float64 nor float8."""

from __future__ import annotations

import pytest
import torch

import redraft
from pretended import pretending
from redraft.core.errors import OptionError
from redraft.core.events import Draft
from redraft.engine import load as loading
from redraft.kernels.head import inverse_cdf

LACKS = (torch.float64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2)
TEXT = "book a table for two at an Italian restaurant in Bergen"
FREE = {"tools": None}
CITY = {
    "type": "json_schema",
    "json_schema": {"schema": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
MODES = {
    "free": FREE,
    "by canvases alone": {**FREE, "handover_steps": 0},
    "tools": {},
    "several canvases": {**FREE, "max_new_tokens": 60, "temperature": 1.5, "max_denoising_steps": 6},
    "greedy": {**FREE, "temperature": 0.0},
    "adaptive canvas": {**FREE, "adaptive_canvas": True},
    "plateau": {**FREE, "plateau_steps": 2},
    "begun": {**FREE, "initial_canvas": "I can only help with"},
    "schema": {**FREE, "response_format": CITY},
    "judged": {**FREE, "logprobs": True},
    "redrafted": {**FREE, "redraft": 1},
    "autoregressive": {**FREE, "mode": "autoregressive"},
    "autoregressive, drawn": {**FREE, "mode": "autoregressive", "temperature": 1.0, "top_p": 0.8},
    "autoregressive, tools": {"mode": "autoregressive"},
    "verified": {**FREE, "mode": "verified"},
    "verified, drawn": {**FREE, "mode": "verified", "temperature": 1.0},
}


@pytest.fixture
def apple(monkeypatch):
    # What pretends is of one thread.
    monkeypatch.setattr(loading, "in_passing", lambda work: work())
    with pretending("mps", LACKS):
        yield


@pytest.fixture(scope="module")
def here():
    return redraft.load("mini", dtype="float32", threads=1)


# Minutes under the pretended device; the others take the same ways.
LONG = ("verified", "verified, drawn", "adaptive canvas", "redrafted", "judged", "begun")


@pytest.mark.parametrize("mode", [pytest.param(m, marks=pytest.mark.full if m in LONG else ()) for m in MODES])
def test_every_mode_says_what_a_cpu_says(here, apple, mode):
    engine = redraft.load("mini", device="mps", dtype="float32")
    assert engine.info.device == "mps:0"
    found, expected = (each.generate(TEXT, seed=3, **MODES[mode]) for each in (engine, here))
    assert found.finish_reason == expected.finish_reason != "error"
    assert found.token_ids == expected.token_ids
    assert found.text == expected.text


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"quantize": "int8"},
        pytest.param({"quantize": "int4"}, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_every_form_runs(apple, options):
    engine = redraft.load("mini", device="mps", **options)
    for mode in ("free", "tools", "autoregressive", "verified"):
        # That they run, not that they settle.
        few = {} if mode == "autoregressive" else {"max_denoising_steps": 4}
        assert engine.generate(TEXT, seed=3, **MODES[mode], **few).finish_reason != "error", mode


def test_a_form_that_it_cannot_hold_is_refused_by_name(apple):
    with pytest.raises(OptionError, match="fp8.*mps"):
        redraft.load("mini", device="mps", quantize="fp8")


def test_holes_drafts_and_company(here, apple):
    engine = redraft.load("mini", device="mps", dtype="float32")
    filled = engine.infill("A table for [[...3]] in [[...]].", seed=1, max_denoising_steps=4)
    assert filled.finish_reason != "error"
    assert filled.text.startswith("A table for ")
    edited = engine.edit("Play some jazz", (10, 14), "blues instead", seed=1, max_denoising_steps=4)
    assert edited.text.startswith("Play some ")
    drafts = [
        [e.token_ids for e in each.stream(TEXT, seed=1, **MODES["by canvases alone"]) if isinstance(e, Draft)]
        for each in (engine, here)
    ]
    assert drafts[0] == drafts[1]
    requests = [redraft.Request(prompt=TEXT, options={"seed": seed, **FREE}) for seed in range(3)]
    both = [[reply.token_ids for reply in each.generate_batch(requests)] for each in (engine, here)]
    assert both[0] == both[1]


def test_a_draw_means_the_same_token_without_float64():
    generator = torch.Generator().manual_seed(0)
    # Flat, peaked, and with nothing in whole blocks, at sizes that blocks do not divide.
    rows = torch.randn(40, 1000, generator=generator) * torch.linspace(0, 12, 40)[:, None]
    rows[10:20, 100:700] = -torch.inf
    shares, uniform = rows.softmax(-1), torch.rand(40, generator=generator)
    uniform[0], uniform[1] = 0.0, 1.0 - 2.0**-24
    expected = inverse_cdf(shares, uniform)
    with pretending("mps", LACKS):
        found = inverse_cdf(shares.to("mps"), uniform.to("mps")).cpu()
    assert (found != expected).sum() <= 1, "only a draw on a border may fall on its other side"
    assert shares.gather(1, found[:, None]).gt(0).all()
