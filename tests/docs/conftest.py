"""The process that answers the pages' commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from snippets import ROOT
from stage import write_shims


@pytest.fixture(scope="session")
def shims(tmp_path_factory) -> Path:
    """A folder with `redraft` and `python`, as a shell finds them."""
    folder = tmp_path_factory.mktemp("shims")
    forked = Path(__file__).with_name("forked.py")
    # mini's forwards are too short for two threads, and the cores may be shared.
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(forked), "serve", str(folder / "socket")], env=environment)
    until = time.monotonic() + 60
    while not (folder / "socket").exists():
        assert process.poll() is None, "the process that answers commands has ended"
        assert time.monotonic() < until, "the process that answers commands does not come up"
        time.sleep(0.05)
    yield write_shims(folder / "bin", folder / "socket")
    process.kill()
    process.wait()
