"""From process start to mini's answer: `redraft run` against the same checkpoint in transformers, turn about.

python benchmarks/first_answer.py --repetitions 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from redraft.bench.machine import cpu_name, others_share
from redraft.checkpoint.locate import BUNDLED

SENTENCE = "add the new Daft Punk album to my Sunday morning playlist"
OURS = [
    sys.executable,
    "-c",
    "import sys; from redraft.cli import main; sys.exit(main())",
    "run",
    SENTENCE,
    "--seed",
    "0",
]
THEIRS = [
    sys.executable,
    "-c",
    f"""
import torch
from transformers import AutoTokenizer, DiffusionGemmaForBlockDiffusion
path = {str(BUNDLED / "mini")!r}
tokenizer = AutoTokenizer.from_pretrained(path)
model = DiffusionGemmaForBlockDiffusion.from_pretrained(path)
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
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"redraft": [], "transformers": [], "help": []}
    busy = others_share()
    helping = [*OURS[:3], "--help"]
    for repetition in range(arguments.repetitions + 1):
        for name, command in (("redraft", OURS), ("transformers", THEIRS), ("help", helping)):
            started = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name} failed: {done.stderr[-500:]}")
            if repetition:
                seconds[name].append(time.perf_counter() - started)
            elif name != "help":
                print(f"{name}: {done.stdout.strip()[:120]}", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "cpu": cpu_name(),
        "others_share": busy,
        "median_s": medians,
        "least_s": {name: min(values) for name, values in seconds.items()},
        "largest_s": {name: max(values) for name, values in seconds.items()},
        "ratio": medians["transformers"] / medians["redraft"],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
