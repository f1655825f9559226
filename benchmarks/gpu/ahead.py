"""Compiles ahead of time, without a GPU, what the benchmark launches on one, into an archive of a Triton cache.

    python benchmarks/gpu/ahead.py --out kernels.tgz --target cuda:90
    python benchmarks/gpu/ahead.py --unpack kernels.tgz     # there, into TRITON_CACHE_DIR, before the benchmark

Triton finds what it compiled by the sources of redraft's kernels, by its own build and by Python's version: this must
run on the very tree that is carried, in an environment with the other machine's Python and Triton. What does not match
is compiled there as ever. The archive may also be unpacked by `tar` alone, into the directory of --at.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from archive import pack, unpack
from elsewhere import ROTARY_STACK_BYTES, TARGETS, on, resources, target_named

# The steps of int4 once more, with programmatic dependent launch.
_PDL = "pdl"
_AT = "/tmp/redraft_kernels"


@dataclass
class Made:
    """What became of a task.

    Attributes:
        kernels: by their hash {name, seconds, shared, registers, spilled}; seconds are 0 for what was there already.
        failed: by what was tried, the error.
    """

    task: str
    seconds: float
    launches: int = 0
    kernels: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """0, or 1 where something of what is measured does not compile, or spills."""
    arguments = _arguments()
    if arguments.unpack:
        into = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
        print(f"{unpack(arguments.unpack, into)} files in {into}")
        return 0
    shared, started = TARGETS[target_named(arguments.target)][0], time.time()
    with tempfile.TemporaryDirectory(prefix="redraft_ahead_") as folder:
        made = []
        try:
            for each in compiled(arguments.target, arguments.parts.split(","), arguments.processes, Path(folder)):
                made.append(each)
                if not arguments.json:
                    _say(each, shared)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        pack(Path(folder), arguments.out, arguments.at)
    kernels = {key: found for each in made for key, found in each.kernels.items()}
    wrong = [each.task for each in made if not each.task.startswith("tune") and (each.failed or _unfit(each, shared))]
    total = {
        "target": arguments.target, "kernels": len(kernels), "seconds": round(time.time() - started, 1),
        "archive": str(arguments.out), "archive_bytes": arguments.out.stat().st_size, "at": arguments.at,
        "wrong": wrong,
    }  # fmt: skip
    print(json.dumps(total | {"tasks": [asdict(each) for each in made]} if arguments.json else total))
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    does = parser.add_mutually_exclusive_group(required=True)
    does.add_argument("--out", type=Path, help="the archive to write")
    does.add_argument("--unpack", type=Path, metavar="ARCHIVE", help="puts one into TRITON_CACHE_DIR")
    names = ", ".join(f"{backend}:{arch}" for backend, arch, _ in TARGETS)
    parser.add_argument("--target", default="cuda:90", help=f"one of {names}")
    parser.add_argument("--parts", default="steps,verify,kernels", help="some of steps, verify, kernels, tune and pdl")
    parser.add_argument("--processes", type=int, default=2, help="that compile at once")
    parser.add_argument("--at", default=_AT, help="where the archive will lie, if `tar` alone unpacks it")
    parser.add_argument("--json", action="store_true", help="all of it as one line, for a machine")
    arguments = parser.parse_args()
    try:
        target_named(arguments.target)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def compiled(target: str, parts: list[str], processes: int, folder: Path) -> Iterator[Made]:
    """Every task of these parts, in the order of `rehearsal.tasks`; the kernels are in the cache of `folder` then.

    Raises:
        ValueError: there is no such part.
    """
    # As the processes that are started find it.
    os.environ.update({"TRITON_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"})
    os.environ.pop("TRITON_INTERPRET", None)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
    usual = [part for part in parts if part != _PDL]
    # redraft reads it once: in processes of their own.
    for variables, wanted in (({}, usual), ({"REDRAFT_PDL": "1"}, ["steps int4"] if _PDL in parts else [])):
        if wanted:
            os.environ.update(variables)
            with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
                tasks = pool.submit(_tasks, wanted).result()
                yield from pool.map(_made, [target] * len(tasks), tasks)


def _tasks(parts: list[str]) -> list[str]:
    import rehearsal

    return rehearsal.tasks(parts)


def _made(target: str, task: str) -> Made:
    import rehearsal

    started = time.time()
    made = Made(task=task if "REDRAFT_PDL" not in os.environ else f"{_PDL}, {task}", seconds=0.0)

    def note(name: str, error: Exception) -> None:
        made.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"

    with on(target_named(target), launchers=True) as seen:
        rehearsal.rehearse(task, note)
    for kernel in seen.compiled:
        found = {"name": kernel.name, "seconds": round(seen.seconds.get(kernel.hash, 0.0), 2)}
        made.kernels[kernel.hash] = found | resources(kernel)
    made.launches = seen.launches.total()
    made.seconds = round(time.time() - started, 1)
    return made


def _unfit(made: Made, shared: int) -> list[str]:
    """Kernels that spill, in units of `resources`, or want more shared memory than there is."""
    found = []
    for kernel in made.kernels.values():
        most = ROTARY_STACK_BYTES if kernel["name"] == "rotary_kernel" else 0
        if kernel["spilled"] > most:
            found.append(f"{kernel['name']} spills {kernel['spilled']} at {kernel['registers']} registers")
        if kernel["shared"] > shared:
            found.append(f"{kernel['name']} wants {kernel['shared']} bytes of shared memory of {shared}")
    return found


def _say(made: Made, shared: int) -> None:
    fresh = [kernel["seconds"] for kernel in made.kernels.values() if kernel["seconds"]]
    print(
        f"[{made.seconds:6.1f} s] {made.task}: {len(made.kernels)} kernels, {len(fresh)} of them compiled here in "
        f"{sum(fresh):.1f} s, {made.launches} launches",
        flush=True,
    )
    for line in [*(f"{name}: {error}" for name, error in made.failed.items()), *_unfit(made, shared)]:
        print(f"           {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
