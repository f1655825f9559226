"""The drawing: what a frame shows, how long it stays, and that the terminal is left as it was."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_fakes import FakeEngine, generation
from rich.console import Console

from redraft.cli import live
from redraft.core.events import Commit, Draft

PIECES = ["Hi", "\n", " there", "<turn|>", "zu", "<pad>"]


def frame(picture, draft, *, width=80, **settings):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard", **settings)
    console.print(picture.frame(draft, width))
    return console.file.getvalue()


def draft(accepted, *, step=0, entropy=1.0, canvas=0, length=6):
    return Draft(
        canvas=canvas,
        step=step,
        token_ids=tuple(range(length)),
        accepted=tuple(map(bool, accepted)),
        entropy_nats=(entropy,) * length,
        temperature=0.71,
    )


@pytest.fixture
def picture():
    return live.Picture(FakeEngine(pieces=PIECES, length=6), max_steps=48)


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_header_and_canvas(picture):
    lines = plain(frame(picture, draft([1, 1, 0, 0, 0, 0], step=4, entropy=0.21))).splitlines()
    assert lines[0] == "canvas 1 · step 5/48 · T 0.71 · 2/6 accepted · mean entropy 0.21 nats"
    assert lines[1] == "━" * 16 + "─" * 32
    assert lines[2] == "Hi⏎ there·zu·"


def test_dots_follow_an_end_of_turn_only_once_it_is_accepted(picture):
    assert "Hi⏎ there···" in plain(frame(picture, draft([1, 1, 1, 1, 0, 0])))


def test_fresh_then_settled_and_renoised_by_entropy(picture):
    assert "\x1b[1;32mHi" in frame(picture, draft([1, 0, 0, 0, 0, 0], entropy=0.3))
    second = frame(picture, draft([1, 0, 0, 0, 0, 0], step=1, entropy=1.0))
    assert "\x1b[1mHi" in second
    assert "\x1b[35m⏎ there" in second
    assert "\x1b[33m⏎ there" in frame(picture, draft([1, 0, 0, 0, 0, 0], step=2, entropy=0.3))
    assert "\x1b[2;35m⏎ there" in frame(picture, draft([1, 0, 0, 0, 0, 0], step=3, entropy=9.0))


def test_no_color_keeps_weight_and_drops_colour(picture, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = frame(picture, draft([1, 0, 0, 0, 0, 0], entropy=9.0))
    assert not re.search(r"\x1b\[[0-9;]*3\d", text)
    assert "\x1b[1mHi" in text
    assert "\x1b[2m⏎ there" in text


@pytest.mark.parametrize("width", [12, 20, 33])
def test_no_line_is_wider_than_the_terminal(width):
    engine = FakeEngine()
    picture = live.Picture(engine, max_steps=48)
    for event in engine.stream("hi"):
        if isinstance(event, Draft):
            lines = plain(frame(picture, event, width=width)).splitlines()
            assert max(map(len, lines)) <= width


def test_a_canvas_never_shrinks_while_it_settles():
    picture = live.Picture(FakeEngine(pieces=["twelve cells", "a"], length=2), max_steps=48)
    tall, low = (dataclasses.replace(draft([0] * 4, length=4), token_ids=(token,) * 4) for token in (0, 1))
    assert frame(picture, low, width=12).count("\n") == 2 + 1
    assert frame(picture, tall, width=12).count("\n") == 2 + 4
    assert frame(picture, low, width=12).count("\n") == 2 + 4
    picture.commit(Commit(canvas=0, token_ids=(), text="", denoising_steps=3))
    assert frame(picture, low, width=12).count("\n") == 2 + 1


def test_control_characters_of_a_piece_are_not_drawn():
    picture = live.Picture(FakeEngine(pieces=["\x1b", "\x1b[2J", "\r", "ok"], length=4), max_steps=8)
    text = frame(picture, draft([0] * 4, length=4))
    assert plain(text).splitlines()[2] == "▫▫▫ok"
    assert "\x1b[2J" not in text


def test_earlier_canvases_stay_in_sight(picture):
    frame(picture, draft([1] * 6))
    picture.commit(Commit(canvas=0, token_ids=(0,), text="First canvas.\x1b[2J", denoising_steps=1))
    lines = plain(frame(picture, draft([0] * 6, canvas=1))).splitlines()
    assert lines[0] == "First canvas."
    assert lines[1].startswith("canvas 2 ")


def drawn(engine, **settings):
    console = Console(file=io.StringIO(), width=80, force_terminal=True, **settings)
    began_s = time.monotonic()
    reply = live.draw(console, engine, engine.stream("hi"), max_steps=48)
    return reply, console.file.getvalue(), time.monotonic() - began_s


def test_draw_ends_with_the_settled_canvas():
    engine = FakeEngine(steps=3)
    reply, text, _ = drawn(engine)
    assert reply is engine.reply
    last = plain(text.rpartition("\x1b[2K")[2]).splitlines()
    assert last[0] == "1 canvas · settled in 8 steps · 23 tokens"
    assert "".join(last[1:3]).startswith("<|tool_call>call:AddToPlaylist{artist:")
    assert "".join(last[1:3]).endswith("}<tool_call|>" + "·" * 17)
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")
    assert engine.closed == 1


def test_frames_stay_in_sight_but_not_for_ever(monkeypatch):
    _, _, elapsed_s = drawn(FakeEngine(steps=5))
    assert elapsed_s > 4 * 0.04
    naps = []
    monkeypatch.setattr(live.time, "sleep", naps.append)
    pace = live.Pace()
    for _ in range(200):
        pace.wait()
    assert sum(naps) == pytest.approx(2.0)
    assert max(naps) <= 0.04


def test_waiting_is_not_the_engines_time():
    gaps = []

    def on_draft(step):
        gaps.append(time.monotonic())

    drawn(FakeEngine(steps=20, on_draft=on_draft))
    assert gaps[-1] - gaps[0] < 19 * 0.04 / 2


def test_an_error_of_the_engine_comes_through():
    def on_draft(step):
        if step == 2:
            raise ValueError("step 2")

    engine = FakeEngine(on_draft=on_draft)
    with pytest.raises(ValueError, match="step 2"):
        drawn(engine)
    assert engine.closed == 1


def test_ctrl_c_leaves_the_terminal_clean(tmp_path):
    """A real terminal, a real signal: drawn by default, exit code 130, the cursor back, the region gone."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import redraft, cli_fakes\n"
        "engine = cli_fakes.FakeEngine(steps=200, on_draft=lambda step: time.sleep(0.05))\n"
        "redraft.load = lambda *a, **k: engine\n"
        "from redraft.cli import main\n"
        "code = main(['run', 'hi'])\n"
        "sys.exit(code if engine.closed == 1 else 99)\n"
    )
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, script], stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    output = b""
    try:
        while b"step 4/48" not in output:
            output += os.read(master, 4096)
        process.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(master, 4096):
                output += chunk
        except OSError:  # Linux: the last process has let go of the terminal.
            pass
        assert process.wait(timeout=20) == 130
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert output.rfind(b"\x1b[?25h") > output.rfind(b"\x1b[?25l") > 0
    assert output.endswith(b"\x1b[2K")
    assert b"Traceback" not in output


def test_failed_reply_still_shows_what_there_was():
    engine = FakeEngine(reply=generation(finish_reason="error", error="lost"), steps=2)
    reply, _, _ = drawn(engine)
    assert reply.error == "lost"
