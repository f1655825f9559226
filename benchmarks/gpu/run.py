"""The whole GPU benchmark: one command, parts that can be run again one by one, a table and a JSON file at the end.

    python benchmarks/gpu/run.py --out results/h100
    python benchmarks/gpu/run.py --out results/h100 --parts verify,int4     # only these; what is there is kept
    python benchmarks/gpu/run.py --out /tmp/trial --device cpu --shape tiny # a trial of the script itself

A part whose file is in --out is left out; delete the file to measure it again. What measures are children of this
process: where a kernel takes the device down with it, the error is recorded and another child goes on. The report is
written after every part.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import importlib
import signal
import sys
import tarfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from children import Children, unpacked
from report import Report
from store import DeviceLost, OutOfTime, ProcessSpent, Skipped, description


@dataclass(frozen=True)
class Part:
    """What a child calls.

    Attributes:
        module, function: which is given the context.
        given: and these.
        usual: whether it runs when no parts are named.
        shared: whether several processes take its cases.
        environment: of a process of its own.
    """

    module: str
    function: str = "run"
    given: tuple[str, ...] = ()
    usual: bool = True
    shared: bool = False
    environment: dict[str, str] = field(default_factory=dict)


# The most valuable first: what a short run still reaches.
PARTS = {
    "machine": Part("machine"),
    "int4_first": Part("points", "run_first", ("int4",)),
    "verify": Part("verify", shared=True),
    "engine": Part("whole"),
    "int4": Part("points", "run", ("int4",)),
    "fp8": Part("points", "run", ("fp8",)),
    "bf16": Part("points", "run", ("bf16",)),
    "reads": Part("reads"),
    "transformers": Part("transformers_side"),
    "agreement": Part("agreement"),
    "kernels": Part("alone"),
    "tune": Part("tune", usual=False),
    "pdl": Part("points", "run_dependent", ("int4",), environment={"REDRAFT_PDL": "1"}),
    "energy": Part("energy"),
    "transformers_compiled": Part("transformers_side", "run_compiled", usual=False),
    "int4_more": Part("points", "run_more", ("int4",), usual=False),
    "fp8_more": Part("points", "run_more", ("fp8",), usual=False),
    "bf16_more": Part("points", "run_more", ("bf16",), usual=False),
}
# Of a child: the device does not answer, there is none, a capture has failed.
LOST, NOTHING, SPENT = 3, 4, 5
# Kept back for the report.
_REPORT_S = 5.0


def main() -> int:
    """Runs children until all parts are done or the time is up, then reports."""
    arguments = _arguments()
    if arguments.child:
        return _child(arguments)
    # As an interrupt: children end with this process, and the report is written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    held = _held(arguments.out)
    if held is None:
        print(f"another run is at work in {arguments.out}", file=sys.stderr)
        return 2
    report = Report(arguments.out, arguments.shape, " ".join(sys.argv), archive=arguments.pack)
    children = Children(
        arguments, deadline=arguments.started + arguments.budget_s - _REPORT_S, on_progress=report.update
    )
    if arguments.kernels is not None:
        try:
            print(f"{unpacked(arguments.kernels)} files of compiled kernels brought along", flush=True)
        except (OSError, ValueError, EOFError, tarfile.TarError, zlib.error) as error:
            print(f"{arguments.kernels} cannot be read ({error}): kernels are compiled here", flush=True)
    wanted = [name for name in PARTS if name in arguments.parts.split(",")]
    try:
        for names in _together(wanted):
            part = PARTS[names[0]]
            processes = children.processes() if part.shared else 1
            if not children.run(names, processes=processes, environment=part.environment):
                break
    finally:
        # Interrupted, too.
        print(report.write(), flush=True)
    return 1 if children.nothing or not report.has_results() else 0


def _held(directory: Path) -> Any:
    """The directory of results, made and held by this process for as long as it lives; None where another holds it."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return lock


def _together(names: list[str]) -> list[list[str]]:
    """Parts that one child runs, one after the other: a model that is made serves the next part too."""
    groups: list[list[str]] = []
    for name in names:
        alone = PARTS[name].shared or PARTS[name].environment
        if alone or not groups or PARTS[groups[-1][0]].shared or PARTS[groups[-1][0]].environment:
            groups.append([name])
        else:
            groups[-1].append(name)
    return groups


def _arguments() -> argparse.Namespace:
    started = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    usual = ",".join(name for name, part in PARTS.items() if part.usual)
    named = ", ".join(name for name, part in PARTS.items() if not part.usual)
    parser.add_argument("--parts", default=usual, help=f"some of {', '.join(PARTS)}; {named} if named only")
    parser.add_argument("--shape", default="full", choices=["full", "mid", "tiny"])
    parser.add_argument("--device", default="cuda", help="cuda (NVIDIA and AMD), xpu or cpu; cuda:1 is a second card")
    parser.add_argument("--budget-s", type=float, default=570.0, help="seconds that the run may take in all")
    parser.add_argument("--kernels", type=Path, help="compiled kernels that were brought along, of ahead.py")
    parser.add_argument("--pack", type=Path, help="a .tgz of all results, kept up to date: for a machine that may go")
    parser.add_argument("--processes", type=int, help="that verify at once; else by the machine")
    parser.add_argument(
        "--capture", default="all", choices=["all", "no-branches", "none"], help="what a graph may hold"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=_share, default=(0, 1), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.started = started
    arguments.parts = ",".join(name.strip() for name in arguments.parts.split(",") if name.strip())
    if arguments.processes is not None and arguments.processes < 1:
        parser.error(f"--processes must be at least 1, got {arguments.processes}")
    if arguments.out.exists() and not arguments.out.is_dir():
        parser.error(f"--out {arguments.out} is no directory")
    unknown = set(arguments.parts.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def _share(text: str) -> tuple[int, int]:
    which, _, count = text.partition("/")
    return int(which), int(count)


def _child(arguments: argparse.Namespace) -> int:
    _end_with_parent()
    try:
        # redraft itself, and what it needs, may be missing.
        from context import Setting

        setting = Setting.of(arguments)
    except Exception as error:
        print(f"nothing can be measured: {description(error)['message']}", flush=True)
        return NOTHING
    for name in [name for name in PARTS if name in arguments.parts.split(",")]:
        context = setting.context(name)
        if context.store.done:
            print(f"{name}: there already", flush=True)
            continue
        context.store.save()
        part = PARTS[name]
        failure = None
        try:
            getattr(importlib.import_module(part.module), part.function)(context, *part.given)
        except OutOfTime:
            print(f"{name}: out of time; the next run goes on here", flush=True)
            context.close()
            return 0
        except DeviceLost:
            context.close()
            return LOST
        except ProcessSpent:
            context.close()
            return SPENT
        except Skipped as reason:
            print(f"{name}: skipped, {reason}", flush=True)
            failure = {"skipped": str(reason)}
        except Exception as error:
            print(f"{name}: {description(error)}", flush=True)
            failure = {"error": description(error)}
        context.close()
        context.store.finish(failure)
    return 0


def _end_with_parent() -> None:
    """Where the system can do that: a process that goes on measuring would do so beside the next run's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
