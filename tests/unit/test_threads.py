"""Work in a thread of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from redraft.core.threads import in_passing, spin_briefly


def test_the_result_comes_and_the_thread_goes() -> None:
    worked = in_passing(threading.current_thread)
    assert worked is not threading.current_thread()
    assert not worked.is_alive()


def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        in_passing(fail)


def test_what_the_environment_says_about_waiting_holds(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    spin_briefly()
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_the_command_does_not_import_torch_before():
    """Where torch is there already, its threads wait as they like."""
    code = "import sys, redraft.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
