"""The whole GPU benchmark: one command, parts that can be run again one by one, a table and a JSON file at the end.

    python benchmarks/gpu/run.py --out results/h100
    python benchmarks/gpu/run.py --out results/h100 --parts verify,int4     # only these; what is there is kept
    python benchmarks/gpu/run.py --out /tmp/trial --device cpu --shape tiny # a trial of the script itself

A part whose file is in --out is left out; delete the file to measure it again. The measuring process is a child of
this one: where a kernel takes the device down with it, the error is recorded and another child goes on.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from report import write_report
from store import DeviceLost, OutOfTime, Skipped, Store, description

ROOT = Path(__file__).resolve().parents[2]
# Part -> (module, function, further arguments), the most valuable first: what a short run still reaches.
PARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "machine": ("machine", "run", ()),
    "verify": ("verify", "run", ()),
    "int4": ("points", "run", ("int4",)),
    "energy": ("energy", "run", ()),
    "kernels": ("kernels", "run", ()),
    "agreement": ("agreement", "run", ()),
    "fp8": ("points", "run", ("fp8",)),
    "bf16": ("points", "run", ("bf16",)),
    "transformers": ("transformers_side", "run", ()),
    "int4_more": ("points", "run_more", ("int4",)),
    "transformers_compiled": ("transformers_side", "run_compiled", ()),
    "fp8_more": ("points", "run_more", ("fp8",)),
    "bf16_more": ("points", "run_more", ("bf16",)),
    "tune": ("tune", "run", ()),
}
# Only when it is asked for.
_EXTRA = ("tune",)
# Of a child: the device does not answer, or there is none.
_LOST, _NOTHING = 3, 4
_DEVICE_LOST = "the device was lost"
# Children that may die before the run gives up.
_DEATHS = 30
# Kept back for the report.
_REPORT_S = 5.0


def main() -> int:
    """Runs children until all parts are done or the time is up, then reports."""
    arguments = _arguments()
    if arguments.child:
        return _child(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + arguments.budget_s - _REPORT_S
    for _ in range(_DEATHS):
        code = _run_child(arguments, deadline)
        if code == _NOTHING:
            return 1
        if code in (0, None):
            break
        death = _DEVICE_LOST if code == _LOST else f"the measuring process ended with status {code}"
        print(death, flush=True)
        if not _settle(arguments, death):
            # It would die again, and nothing would be left behind.
            return 1
    print(write_report(arguments.out, arguments.shape, " ".join(sys.argv)), flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    usual = ",".join(name for name in PARTS if name not in _EXTRA)
    parser.add_argument("--parts", default=usual, help=f"some of {', '.join(PARTS)}; {', '.join(_EXTRA)} if named only")
    parser.add_argument("--shape", default="full", choices=["full", "mid", "tiny"])
    parser.add_argument("--device", default="cuda", help="cuda (NVIDIA and AMD), xpu or cpu")
    parser.add_argument("--budget-s", type=float, default=570.0, help="seconds that the run may take in all")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.parts.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def _run_child(arguments: argparse.Namespace, deadline: float) -> int | None:
    """Runs the parts that are left in a process of their own; returns its status, None where it was stopped."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    if arguments.device == "cpu":
        # Kernels run in Triton's interpreter there; it must be known when Triton is imported.
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, __file__, "--child", "--out", str(arguments.out), "--parts", arguments.parts]
    command += ["--shape", arguments.shape, "--device", arguments.device, "--deadline", str(deadline)]
    # In a group of its own: compilers that it has started end with it.
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return child.wait(timeout=max(1.0, deadline - time.time()))
    except subprocess.TimeoutExpired:
        # One measurement that takes too long; those before it are in their files.
        print("out of time: the measurement under way was stopped", flush=True)
        return None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            _settle(arguments, None)


def _settle(arguments: argparse.Namespace, death: str | None) -> bool:
    """Deals with what was under way; returns whether there was anything. A part that died between its measurements is
    finished as it is."""
    settled = death == _DEVICE_LOST
    for part in arguments.parts.split(","):
        store = Store(arguments.out, part)
        if not store.path.exists() or store.done:
            continue
        found = store.settle(death)
        if death is not None and not found and death != _DEVICE_LOST:
            store.finish({"error": {"type": "ProcessDied", "message": death}})
            found = True
        settled = settled or found
    return settled


def _child(arguments: argparse.Namespace) -> int:
    try:
        # redraft itself, and what it needs, may be missing.
        from context import Setting

        setting = Setting.of(arguments)
    except Exception as error:
        print(f"nothing can be measured: {description(error)}", flush=True)
        return _NOTHING
    for part in [name for name in PARTS if name in arguments.parts.split(",")]:
        context = setting.context(part)
        if context.store.done:
            print(f"{part}: there already", flush=True)
            continue
        context.store.save()
        module, function, given = PARTS[part]
        try:
            getattr(importlib.import_module(module), function)(context, *given)
        except OutOfTime:
            print(f"{part}: out of time; the next run goes on here", flush=True)
            return 0
        except DeviceLost:
            return _LOST
        except Skipped as reason:
            print(f"{part}: skipped, {reason}", flush=True)
            context.store.finish({"skipped": str(reason)})
        except Exception as error:
            print(f"{part}: {description(error)}", flush=True)
            context.store.finish({"error": description(error)})
        else:
            context.store.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
