"""Do two checkouts answer alike? Same seed, same text, bit for bit, in every mode, as the model is and in int8.

    python benchmarks/same_texts.py ../before . --data held_out.jsonl

Requests are the rows of a JSONL file of conversations, evenly spaced, each without its last message; row i
has seed i.
Some are asked again without tools, which holds the reply to nothing. What a source has answered is kept in --keep, so
that one of them can be compared again and again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MODES = ("diffusion", "autoregressive", "verified")
FORMS = (None, "int8")
_AT_ONCE = 8


def main() -> int:
    """Prints a row for every mode and form, and what differs; 1 where anything does."""
    arguments = _arguments()
    if arguments.answer:
        _answer(arguments)
        return 0
    arguments.keep.mkdir(parents=True, exist_ok=True)
    differing = 0
    print("| mode | form | requests | failed | same | first that differs |\n|---|---|---|---|---|---|")
    for mode in arguments.modes.split(","):
        for form in FORMS:
            # Turn about on two cores: neither is given a machine that the other is not.
            with ThreadPoolExecutor(2) as both:
                jobs = [both.submit(_answers, arguments, place, mode, form) for place in arguments.checkouts]
                before, after = (job.result() for job in jobs)
            unlike = [row for row, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
            differing += len(unlike)
            first = f"row {unlike[0]}" if unlike else "-"
            failed = " and ".join(str(sum(reply["finish_reason"] == "error" for reply in x)) for x in (before, after))
            same = len(before) - len(unlike)
            print(f"| {mode} | {form or 'as it is'} | {len(before)} | {failed} | {same} | {first} |", flush=True)
            for row in unlike[:3]:
                print(f"  {row}: {json.dumps(before[row])[:300]}\n  {row}: {json.dumps(after[row])[:300]}")
    print("all the same" if not differing else f"{differing} replies differ")
    return int(differing > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, help="two directories that hold src/redraft")
    parser.add_argument("--data", type=Path, required=True, help="JSONL, a conversation a row")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--free", type=int, default=40, help="of these that are asked without tools as well")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "same_texts")
    # Of the processes that answer: what is answered, and where to.
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--form", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.answer and len(arguments.checkouts) != 2:
        parser.error("two checkouts are compared")
    return arguments


def _answers(arguments: argparse.Namespace, checkout: Path, mode: str, form: str | None) -> list[dict[str, Any]]:
    """What a checkout says, by a process of its own, which sees no other source."""
    source = (checkout / "src").resolve()
    if not (source / "redraft").is_dir():
        raise SystemExit(f"{checkout} holds no src/redraft")
    asked = [arguments.data.read_bytes(), arguments.requests, arguments.free, arguments.model, arguments.dtype]
    key = hashlib.sha256(repr([_state(checkout), mode, form, *asked]).encode()).hexdigest()[:16]
    path = arguments.keep / f"{key}.json"
    if not path.exists():
        command = [sys.executable, __file__, "--answer", str(path), "--mode", mode, "--data", str(arguments.data)]
        command += ["--requests", str(arguments.requests), "--free", str(arguments.free)]
        command += ["--model", arguments.model, "--dtype", arguments.dtype]
        command += ["--form", form] if form else []
        environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{checkout}: {done.stderr[-2000:]}")
    return json.loads(path.read_text(encoding="utf-8"))


def _state(checkout: Path) -> str:
    """The source and the models that a checkout has at this moment."""
    found = hashlib.sha256()
    for path in sorted((checkout / "src").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            found.update(str(path.relative_to(checkout)).encode() + path.read_bytes())
    return found.hexdigest()


def _answer(arguments: argparse.Namespace) -> None:
    import redraft

    assert Path(redraft.__file__).is_relative_to(os.environ["PYTHONPATH"])
    rows = [json.loads(line) for line in arguments.data.read_text(encoding="utf-8").split("\n") if line.strip()]
    count = min(arguments.requests, len(rows))
    chosen = [rows[i * len(rows) // count] for i in range(count)]
    engine = redraft.load(arguments.model, dtype=arguments.dtype, quantize=arguments.form, threads=1)
    requests = [
        redraft.Request(
            prompt=row["messages"][:-1],
            options={"seed": seed, "mode": arguments.mode} | ({"tools": None} if free else {}),
        )
        for free, part in ((False, chosen), (True, chosen[: arguments.free]))
        for seed, row in enumerate(part)
    ]  # fmt: skip
    found = []
    for start in range(0, len(requests), _AT_ONCE):
        for reply in engine.generate_batch(requests[start : start + _AT_ONCE]):
            found.append(
                {
                    "token_ids": list(reply.token_ids),
                    "text": reply.text,
                    "calls": [[call.name, call.arguments] for call in reply.tool_calls],
                    "finish_reason": reply.finish_reason,
                    "denoising_steps": reply.stats.denoising_steps,
                    "encode_passes": reply.stats.encode_passes,
                }
            )
    fresh = arguments.answer.with_suffix(".new")
    fresh.write_text(json.dumps(found), encoding="utf-8")
    os.replace(fresh, arguments.answer)


if __name__ == "__main__":
    sys.exit(main())
