"""Two checkouts of redraft, turn about: a process of each in every round, and what the rounds' ratios say.

    python benchmarks/turn_about.py --before ../before --rounds 10

    # the same, written out: what stands behind the dashes goes to `redraft bench`
    python benchmarks/turn_about.py --before ../before --rounds 10 \\
        --figures step_s,encode_s,autoregressive_token_s -- \\
        --shape mid --layers 2 --steps 4 --repetitions 1 --dtype float32

A ratio is this checkout's figure over the other's in the same round, so that below 1 is faster, and stands with an
interval that holds its median in 95 of 100 cases. With the default work a round takes half a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redraft.bench.machine import cpu_name, others_share

SOURCE = Path(__file__).parents[1] / "src"
REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]
WORK = ["--shape", "mid", "--layers", "2", "--steps", "4", "--repetitions", "1", "--dtype", "float32"]
FIGURES = "step_s,encode_s,autoregressive_token_s"


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="another checkout")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--figures", default=FIGURES, help="keys of what `redraft bench --json` prints")
    parser.add_argument("work", nargs="*", help="options of `redraft bench`, behind --", metavar="OPTION")
    arguments = parser.parse_args()
    names, work = arguments.figures.split(","), arguments.work or WORK
    sources = {"redraft": SOURCE, "before": source_of(arguments.before)}
    found: dict[str, dict[str, list[float]]] = {name: {which: [] for which in sources} for name in names}
    busy = others_share()
    for number in range(arguments.rounds):
        for which in in_turn(list(sources), number):
            report = json.loads(output([*REDRAFT, "bench", "--json", *work], sources[which]))
            for name in names:
                found[name][which].append(report[name])
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    figures = {name: compared(values["redraft"], values["before"]) for name, values in found.items()}
    head = {"cpu": cpu_name(), "others_share": busy, "work": " ".join(work), "rounds": arguments.rounds}
    print(json.dumps(head | figures, indent=2))


def source_of(checkout: Path) -> Path:
    """Where a checkout's package is imported from."""
    source = checkout.resolve() / "src"
    if not (source / "redraft").is_dir():
        raise SystemExit(f"{checkout} is no checkout: it holds no src/redraft")
    return source


def environment_of(source: Path) -> dict[str, str]:
    """This environment, with a checkout's package in front of any that is installed."""
    return os.environ | {"PYTHONPATH": str(source)}


def output(command: Sequence[str], source: Path) -> str:
    """What a command prints with a checkout's package; it ends this process where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment_of(source))
    if done.returncode:
        raise SystemExit(f"{source.parent}: failed: {done.stderr[-500:]}")
    return done.stdout


def in_turn(names: list[str], number: int) -> list[str]:
    """The order of a round: none is always the first."""
    return names[:: -1 if number % 2 else 1]


def compared(ours: list[float], before: list[float]) -> dict[str, Any]:
    """Medians of both, and the median of the rounds' ratios with its interval."""
    ratios = [one / other for one, other in zip(ours, before, strict=True)]
    return {
        "redraft": statistics.median(ours),
        "before": statistics.median(before),
        "ratio_to_before": statistics.median(ratios),
        "interval_95": interval_of_median(ratios),
    }


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """What holds the median in 95 of 100 cases: its spread over samples that are drawn again from these."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(4000))
    return medians[100], medians[-101]


if __name__ == "__main__":
    main()
