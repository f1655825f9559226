"""From process start to mini's answer: `redraft run` against the same checkpoint in transformers, turn about.

    python benchmarks/first_answer.py --repetitions 5
    python benchmarks/first_answer.py --repetitions 20 --before ../before   # against another checkout of redraft

Of two checkouts it gives the median of each pair's ratio, with an interval that holds it in 95 of 100 cases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from turn_about import REDRAFT, SOURCE, compared, in_turn, output, source_of

from redraft.bench.machine import cpu_name, others_share
from redraft.bench.subjects import SMALL_TOWER
from redraft.checkpoint.locate import BUNDLED

SENTENCE = "add the new Daft Punk album to my Sunday morning playlist"
OURS = [*REDRAFT, "run", SENTENCE, "--seed", "0"]
THEIRS = [
    sys.executable,
    "-c",
    f"""
import torch
from transformers import AutoTokenizer, DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
path = {str(BUNDLED / "mini")!r}
tokenizer = AutoTokenizer.from_pretrained(path)
# Without one it would build its default tower, 168 million random parameters.
config = DiffusionGemmaConfig.from_pretrained(path, vision_config={SMALL_TOWER!r})
model = DiffusionGemmaForBlockDiffusion.from_pretrained(path, config=config)
ids = tokenizer.apply_chat_template([{{"role": "user", "content": {SENTENCE!r}}}], add_generation_prompt=True,
                                    tokenize=True, return_tensors="pt", return_dict=True)["input_ids"]
torch.manual_seed(0)
out = model.generate(ids, max_new_tokens=64)
print(tokenizer.decode(out.sequences[0, ids.shape[1]:]))
""",
]


def main() -> None:
    """Prints one JSON document: seconds of each, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another checkout, in the place of transformers")
    arguments = parser.parse_args()
    subjects = {"redraft": (OURS, SOURCE), "transformers": (THEIRS, SOURCE), "help": ([*REDRAFT, "--help"], SOURCE)}
    if arguments.before is not None:
        subjects = {"redraft": (OURS, SOURCE), "before": (OURS, source_of(arguments.before))}
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    busy = others_share()
    for repetition in range(arguments.repetitions + 1):
        for name in in_turn(list(subjects), repetition):
            started = time.perf_counter()
            said = output(*subjects[name])
            if repetition:
                seconds[name].append(time.perf_counter() - started)
            elif name != "help":
                print(f"{name}: {said.strip()[:120]}", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "cpu": cpu_name(),
        "others_share": busy,
        "median_s": medians,
        "least_s": {name: min(values) for name, values in seconds.items()},
        "largest_s": {name: max(values) for name, values in seconds.items()},
    }
    if arguments.before is None:
        report["ratio"] = medians["transformers"] / medians["redraft"]
    else:
        found = compared(seconds["redraft"], seconds["before"])
        report |= {name: found[name] for name in ("ratio_to_before", "interval_95")}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
