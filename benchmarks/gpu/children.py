"""The processes that measure, for `run.py`: started, watched, and another in the place of one that died."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from archive import unpack
from store import Store

ROOT = Path(__file__).resolve().parents[2]
RUN = Path(__file__).with_name("run.py")
DEVICE_LOST = "the device was lost"
# Children that may die before the run gives up.
_DEATHS = 30
# A process that verifies holds a context, matrices, and references in float64.
_PROCESS_BYTES, _MOST_PROCESSES = 20e9, 6
_POLL_S = 0.25
# After a capture that failed, the next process captures less.
_LESS = {"all": "no-branches", "no-branches": "none", "none": "none"}


class Children:
    """Runs parts in processes of their own.

    Attributes:
        nothing: whether nothing can be measured here, or what measures dies without having begun.
    """

    def __init__(self, arguments: argparse.Namespace, *, deadline: float, on_progress: Callable[[], None]) -> None:
        """`deadline` is in seconds of `time.time`; `on_progress` is called every now and then."""
        self._arguments, self._deadline, self._on_progress = arguments, deadline, on_progress
        self._capture, self._deaths, self.nothing = arguments.capture, 0, False

    def processes(self) -> int:
        """That verify at once: what was asked for, else what cores and memory of the device allow."""
        if self._arguments.processes:
            return self._arguments.processes
        if self._arguments.device == "cpu":
            return 1
        memory = Store(self._arguments.out, "machine").results.get("device", {}).get("total_memory", 0)
        return max(1, min(_MOST_PROCESSES, (os.cpu_count() or 1) // 2, int(memory // _PROCESS_BYTES)))

    def run(self, parts: list[str], *, processes: int, environment: dict[str, str]) -> bool:
        """Runs parts until they are done; False if nothing more should be."""
        shares = dict.fromkeys(range(processes))
        for which in shares:
            # What a run before this one has left under way when it was stopped is made again.
            self._settle(parts, which, processes, None)
        while shares:
            running = {which: self._start(parts, (which, processes), environment) for which in shares}
            codes = self._wait(running)
            for which, code in codes.items():
                if code == 4:
                    self.nothing = True
                    return False
                if code is None:
                    print("out of time: the measurement under way was stopped", flush=True)
                    self._settle(parts, which, processes, None)
                    continue
                if code == 0 or not self._goes_on(parts, which, processes, code):
                    shares.pop(which)
            if self.nothing or time.time() >= self._deadline:
                return False
        return not any(self._left(parts, which, processes) for which in range(processes))

    def _goes_on(self, parts: list[str], which: int, count: int, code: int) -> bool:
        """Deals with a child that did not end well; whether another is to go on in its place."""
        if code == 5:
            self._capture = _LESS[self._capture]
            print(f"a capture failed: another process goes on, which captures {self._capture}", flush=True)
            return True
        death = DEVICE_LOST if code == 3 else f"the measuring process ended with status {code}"
        print(death, flush=True)
        self._deaths += 1
        # Where nothing was under way it would die again, and nothing would be left behind.
        self.nothing = not self._settle(parts, which, count, death) or self._deaths >= _DEATHS
        return not self.nothing

    def _start(self, parts: list[str], share: tuple[int, int], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        arguments = self._arguments
        whole = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
        # A second profile in a process that has captured crashes some versions of CUDA.
        whole |= {"PYTHONUNBUFFERED": "1", "TEARDOWN_CUPTI": "0"} | environment
        if arguments.device == "cpu":
            # Kernels run in Triton's interpreter there; it must be known when Triton is imported.
            whole["TRITON_INTERPRET"] = "1"
        command = [sys.executable, str(RUN), "--child", "--out", str(arguments.out), "--parts", ",".join(parts)]
        command += ["--shape", arguments.shape, "--device", arguments.device, "--deadline", str(self._deadline)]
        command += ["--capture", self._capture, "--share", f"{share[0]}/{share[1]}"]
        # In a group of its own: compilers that it has started end with it.
        return subprocess.Popen(command, env=whole, start_new_session=True)

    def _wait(self, running: dict[int, subprocess.Popen[bytes]]) -> dict[int, int | None]:
        """The status of each, None for what was stopped when the time was up."""
        try:
            while any(child.poll() is None for child in running.values()) and time.time() < self._deadline:
                time.sleep(_POLL_S)
                self._on_progress()
            return {which: child.poll() for which, child in running.items()}
        finally:
            for child in running.values():
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()

    def _stores(self, parts: list[str], which: int, count: int) -> list[Store]:
        names = [part if count == 1 else f"{part}.{which}" for part in parts]
        return [Store(self._arguments.out, name) for name in names]

    def _left(self, parts: list[str], which: int, count: int) -> bool:
        return any(not store.done for store in self._stores(parts, which, count))

    def _settle(self, parts: list[str], which: int, count: int, death: str | None) -> bool:
        """Deals with what was under way; returns whether there was anything. A part that died between its measurements
        is finished as it is."""
        settled = death == DEVICE_LOST
        for store in self._stores(parts, which, count):
            if not store.path.exists() or store.done:
                continue
            found = store.settle(death)
            if death is not None and not found and death != DEVICE_LOST:
                store.finish({"error": {"type": "ProcessDied", "message": death}})
                found = True
            settled = settled or found
        return settled


def unpacked(carried: Path) -> int:
    """Puts compiled kernels where Triton looks for them, in this process's children too; returns how many files."""
    place = Path(os.environ.setdefault("TRITON_CACHE_DIR", str(Path(tempfile.gettempdir()) / "redraft-triton")))
    return unpack(carried, place)
