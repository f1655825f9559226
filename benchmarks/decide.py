"""What a decision costs beside a denoising step, and how many a second there are.

    python benchmarks/decide.py --layers 4 --threads 2          # the released shape, int8, random weights
    python benchmarks/decide.py --model mini --threads 2        # decisions a second, alone and in batches

Of the shape: a step of a whole canvas, and beside it, turn about in every round, one question's read by the canvas and
by the causal mode, 64 questions on one canvas, and a second state behind questions that are known. Ratios are to that
round's step; they stand with the interval that holds their median in 95 of 100 cases. Prompts are random ids, as long
as questions are. `--device cuda` runs the same on a GPU, where the reads of a list share their forwards.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from turn_about import interval_of_median

import redraft
from redraft.bench.machine import cpu_name, others_share
from redraft.bench.shapes import shape_directory
from redraft.bench.subjects import NEVER_CONFIDENT
from redraft.core.questions import choice, predicate, score
from redraft.core.reads import NOISE, CanvasRead, CausalRead, Reading, Slot
from redraft.engine.engine import LocalEngine
from redraft.engine.prefix import PrefixCache

# Tokens of a state, of a question with four options, and of the same among others.
STATE, QUESTION, AMONG = 512, 48, 24
TOGETHER = 64
LABELS = (11, 12, 13, 14)


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model with a tokenizer, for decisions a second")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--quantize", default="int8", choices=("int8", "int4"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    busy = others_share()
    if arguments.model is not None:
        found = a_second(redraft.load(arguments.model, device=arguments.device, threads=arguments.threads))
    else:
        directory = shape_directory("full", num_hidden_layers=arguments.layers)
        how = {"device": arguments.device, "threads": arguments.threads, "quantize": arguments.quantize}
        engine = redraft.load(directory, **how)
        assert isinstance(engine, LocalEngine)
        found = {"layers": arguments.layers, "quantize": arguments.quantize} | beside_a_step(engine, arguments.rounds)
    head = {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__, "others_share": busy}
    print(json.dumps(head | found, indent=2))


def beside_a_step(engine: LocalEngine, rounds: int) -> dict[str, Any]:
    """Seconds of each read, and its ratio to a denoising step of the same round."""
    draw = torch.Generator().manual_seed(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1000, engine.info.vocab_size, (count,), generator=draw).tolist())

    state, questions, length = ids(STATE), ids(TOGETHER * AMONG), engine.info.canvas_length
    narrow = (NOISE, 106, *[1] * 14)
    slot = (Slot(position=0, token_ids=LABELS),)
    many = tuple(Slot(position=4 * k + 2, token_ids=LABELS) for k in range(TOGETHER))
    wide = tuple(NOISE if place % 4 == 2 and place < 4 * TOGETHER else 500 for place in range(length))

    def canvas(prompt: tuple[int, ...], kept: tuple[int, ...], canvas: tuple[int, ...], slots: tuple[Slot, ...]):
        return CanvasRead(prompt=prompt, kept=kept, canvas=canvas, seed=1, slots=slots)

    behind_state, known = (*state, *ids(QUESTION)), (len(state),)
    whole = (*state, *questions)
    cases: dict[str, Callable[[], float]] = {
        "step": lambda: step(engine, list(state)),
        "one question by canvas": reading(engine, canvas(behind_state, known, narrow, slot)),
        "its canvas alone": reading(engine, canvas(behind_state, (len(behind_state),), narrow, slot)),
        "one question by the causal mode": reading(
            engine, CausalRead(prompt=behind_state, kept=known, token_ids=LABELS)
        ),
        f"canvas of {TOGETHER} questions": reading(engine, canvas(whole, (len(whole),), wide, many)),
        f"{TOGETHER} questions behind a known state": reading(engine, canvas(whole, known, wide, many)),
        f"a second state behind {TOGETHER} known questions": lambda: reading(
            engine, canvas((*questions, *ids(STATE)), (len(questions),), wide, many)
        )(),
    }
    for name, run in cases.items():
        print(f"{name}: {run():.2f} s", file=sys.stderr, flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in list(cases)[:: -1 if number % 2 else 1]:
            seconds[name].append(cases[name]())
    report = {}
    for name, took in seconds.items():
        ratios = [one / step for one, step in zip(took, seconds["step"], strict=True)]
        report[name] = {"seconds": statistics.median(took), "steps": statistics.median(ratios),
                        "interval_95": interval_of_median(ratios)}  # fmt: skip
    return {"reads": report}


def step(engine: LocalEngine, prompt: list[int]) -> float:
    """Seconds of a denoising step of a whole canvas, all that belongs to it included."""
    stats = engine.generate(
        prompt, seed=0, max_new_tokens=engine.info.canvas_length, max_denoising_steps=2,
        confidence_threshold=NEVER_CONFIDENT, retry_empty=False,
    ).stats  # fmt: skip
    return stats.denoise_s / stats.denoising_steps


def reading(engine: LocalEngine, read: CanvasRead | CausalRead) -> Callable[[], float]:
    """What runs a read, whose beginning is known from its first run on, and says how long it took."""

    def run() -> float:
        started = time.perf_counter()
        found: list[Reading] = engine.read([read])
        assert len(found) == 1
        return time.perf_counter() - started

    return run


def a_second(engine: redraft.Engine) -> dict[str, Any]:
    """Decisions a second by themselves and jointly, for 1 to 64 questions about a state nobody has seen."""
    asked = [
        predicate("Is this about money?"),
        choice("Who should take it?", ["billing", "shipping", "returns", "sales"]),
        score("How urgent is it?", ["can wait", "today", "now"]),
    ]
    report: dict[str, Any] = {}
    for count in (1, 4, 16, 64):
        questions = [asked[number % len(asked)] for number in range(count)]
        ways = {"canvas": {"reader": "canvas"}, "causal": {"reader": "causal"}, "jointly": {"joint": True}}
        for name, how in ways.items():
            took = []
            for number in range(12):
                if isinstance(engine, LocalEngine):
                    engine.prefixes = PrefixCache()
                state = f"Order {number}: my card was charged twice and nothing has arrived."
                started = time.perf_counter()
                engine.decide(state, questions, gate_nats=None, **how)
                took.append(time.perf_counter() - started)
            report.setdefault(name, {})[count] = round(count / statistics.median(took[2:]), 1)
    return {"model": engine.info.name, "decisions_a_second": report}


if __name__ == "__main__":
    main()
