"""A file of states, interrupted and gone on with, by the real command and mini."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

REDRAFT = [sys.executable, "-c", "import sys; from redraft.cli import main; sys.exit(main())"]
TOOLS = Path(__file__).parents[2] / "examples" / "tools.yaml"
ROWS = 400


def test_what_ctrl_c_ends_goes_on_and_is_the_same(tmp_path):
    states = [{"id": n, "text": f"play something by artist {n}"} for n in range(ROWS)]
    source, out, whole = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "whole.jsonl"))
    source.write_text("".join(json.dumps(state) + "\n" for state in states[:12]))
    command = [*REDRAFT, "decide", "--states", str(source), "--questions", str(TOOLS), "--threads", "1", "--out"]
    subprocess.run([*command, str(whole)], check=True, timeout=120)

    source.write_text("".join(json.dumps(state) + "\n" for state in states))
    process = subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 90
    while not out.exists() or out.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in told
    written = out.read_bytes().splitlines(keepends=True)
    assert 3 <= len(written) < ROWS
    # What stands there is whole, and what an uninterrupted run has; another process has the same answers.
    assert [line for line, _ in zip(whole.read_bytes().splitlines(keepends=True), written, strict=False)] == written[
        :12
    ]

    source.write_text("".join(json.dumps(state) + "\n" for state in states[: len(written) + 2]))
    done = subprocess.run([*command, str(out), "--json"], capture_output=True, text=True, timeout=120)
    counts = json.loads(done.stdout)
    assert (counts["rows"], counts["asked"], counts["errors"]) == (len(written) + 2, 2, 0)
    assert out.read_bytes().startswith(b"".join(written))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(len(written) + 2))
    assert {row["tool"] for row in rows} == {"PlayMusic"}
