"""`redraft chat` and `redraft train`, line by line."""

from __future__ import annotations

import builtins
import dataclasses
import io
import json
import os
import signal
import sys
import time
import types

import pytest
from cli_fakes import CALL, FakeEngine, generation

import redraft
from redraft.cli import main
from redraft.core.errors import ContextLengthError, ImageError

TEXT = generation(text="Hello.", tool_calls=(), finish_reason="stop")
NOTE = "1 canvas · 8 steps · 23 tokens · 2.9 tokens/forward · 460 tokens/s · first canvas in 0.04 s · seed 7\n"


@pytest.fixture
def engine(monkeypatch):
    engine = FakeEngine(reply=TEXT)
    monkeypatch.setitem(vars(redraft), "load", lambda model, **settings: engine)
    return engine


@pytest.fixture
def pipe(monkeypatch):
    """Feeds chat from something that is no terminal."""
    return lambda *lines: monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


@pytest.fixture
def type_in(monkeypatch):
    """Feeds chat from a terminal; an exception in place of a line is raised at the prompt."""

    def feed(*lines):
        rest = iter([*lines, EOFError()])

        def answer(prompt=""):
            line = next(rest)
            if isinstance(line, BaseException):
                raise line
            return line

        terminal = io.StringIO()
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(builtins, "input", answer)

    return feed


def prompts(engine):
    return [[(m["role"], m["content"]) for m in prompt] for prompt, _ in engine.asked]


def test_a_picture_goes_with_the_next_message(engine, type_in, capsys, tmp_path):
    engine.info = dataclasses.replace(engine.info, sees=True)
    path = tmp_path / "a.png"
    path.write_bytes(b"looked at by the engine")
    type_in(f"/image {path}", "what is it?", "and now?", "/image", "/image nowhere.png")
    assert main(["chat"]) == 0
    shown = [{"type": "image", "image": str(path)}, {"type": "text", "text": "what is it?"}]
    assert [[m["content"] for m in prompt] for prompt, _ in engine.asked] == [
        [shown],
        [shown, "Hello.", "and now?"],
    ]
    said = capsys.readouterr().err
    assert "a.png goes with your next message" in said
    assert "/image takes a file, as in /image photo.jpg" in said
    assert "/image: nowhere.png is no file" in said


def test_of_an_animation_the_first_frame_is_said_to_be_seen(engine, type_in, capsys, tmp_path):
    from PIL import Image

    engine.info = dataclasses.replace(engine.info, sees=True)
    path = tmp_path / "a.gif"
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 90)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    type_in(f"/image {tmp_path / 'still.gif'}", f"/image {path}", "what is it?", f"/video {path}", "and now?", "/video")
    assert main(["chat"]) == 0
    said = capsys.readouterr().err
    assert said.count("an animation: its first frame is looked at") == 1
    assert "/video takes a file, as in /video clip.mp4" in said
    [_, (messages, _)] = engine.asked
    assert messages[-1]["content"][0] == {"type": "video", "video": str(path)}
    assert main(["run", "what?", "--image", str(path)]) == 0
    assert "its first frame is looked at" in capsys.readouterr().err
    assert main(["run", "what?", "--image", str(path), "--quiet"]) == 0
    assert "first frame" not in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_stays_with_nobody(engine, type_in, capsys, tmp_path):
    engine.info = dataclasses.replace(engine.info, sees=True)
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    answer = engine.stream

    def stream(messages, **options):
        if isinstance(messages[-1]["content"], list):
            raise ImageError("no PNG", str(path))
        return answer(messages, **options)

    engine.stream = stream
    type_in(f"/image {path}", "what is it?", "then without")
    assert main(["chat"]) == 0
    assert prompts(engine) == [[("user", "then without")]]
    assert f"{path}: no PNG" in capsys.readouterr().err


def test_who_does_not_see_takes_no_picture(engine, type_in, capsys):
    type_in("/image a.png", "hi")
    assert main(["chat"]) == 0
    assert prompts(engine) == [[("user", "hi")]]
    assert "this model does not see" in capsys.readouterr().err


def test_the_conversation_grows(engine, pipe, capsys):
    pipe("hi", "", "and you?")
    assert main(["chat"]) == 0
    assert prompts(engine) == [
        [("user", "hi")],
        [("user", "hi"), ("assistant", "Hello."), ("user", "and you?")],
    ]
    assert capsys.readouterr() == ("Hello.\nHello.\n", NOTE * 2)


def test_calls_are_kept_in_the_conversation(engine, pipe):
    engine.reply = generation(text="On it.", tool_calls=(CALL,))
    pipe("add it", "thanks")
    assert main(["chat"]) == 0
    call = {"type": "function", "function": {"name": "AddToPlaylist", "arguments": CALL.arguments}}
    assert engine.asked[1][0][1] == {"role": "assistant", "content": "On it.", "tool_calls": [call]}


def test_commands(engine, pipe, capsys):
    pipe("/help", "/stats", "hi", "/stats", "/seed 5", "a", "/new", "/seed", "b", "/quit", "never")
    assert main(["chat", "--quiet", "--t-max", "0.6"]) == 0
    assert [changes for _, changes in engine.asked] == [{"t_max": 0.6}, {"t_max": 0.6, "seed": 5}, {"t_max": 0.6}]
    assert [len(prompt) for prompt, _ in engine.asked] == [1, 3, 1]
    err = capsys.readouterr().err
    assert err.startswith("/new ")
    assert "no reply yet\n" + NOTE in err


@pytest.mark.parametrize("line", ["/sing", "/seed x", "/seed -1"])
def test_a_wrong_command_in_a_pipe_ends_it(engine, pipe, capsys, line):
    pipe(line, "hi")
    assert main(["chat"]) == 2
    assert engine.asked == []
    assert capsys.readouterr().err.count("\n") == 1


def test_a_wrong_command_at_a_terminal_does_not(engine, type_in, capsys):
    type_in("/sing", "hi")
    assert main(["chat"]) == 0
    assert len(engine.asked) == 1
    assert "unknown command /sing" in capsys.readouterr().err


def test_an_error_takes_the_message_back(engine, type_in, capsys):
    def on_draft(step):
        if len(engine.asked) == 1:
            raise ContextLengthError(9, 8)

    engine.on_draft = on_draft
    type_in("too long", "hi")
    assert main(["chat"]) == 0
    assert prompts(engine)[1] == [("user", "hi")]
    assert "the prompt has 9 tokens" in capsys.readouterr().err


def test_a_failed_reply_is_not_kept(engine, type_in):
    engine.reply = generation(text="half", tool_calls=(), finish_reason="error", error="lost")
    type_in("one", "two")
    assert main(["chat"]) == 0
    assert prompts(engine)[1] == [("user", "two")]


@pytest.mark.parametrize("flag", ["--live", "--no-live"])
def test_ctrl_c_cancels_the_reply_alone(engine, type_in, capsys, flag):
    def on_draft(step):
        if len(engine.asked) == 1:
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.02)

    engine.on_draft, engine.steps = on_draft, 12
    type_in("first", KeyboardInterrupt(), "second")
    assert main(["chat", flag]) == 0
    assert engine.closed == 2
    assert prompts(engine) == [[("user", "first")], [("user", "second")]]
    out, err = capsys.readouterr()
    assert "cancelled" in err
    assert "Ctrl-D quits" in err
    assert out.endswith("Hello.\n")


def test_ctrl_c_in_a_pipe_is_exit_code_130(engine, pipe):
    def on_draft(step):
        if step == 0:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)

    engine.on_draft = on_draft
    pipe("hi", "never")
    assert main(["chat"]) == 130
    assert engine.closed == 1
    assert len(engine.asked) == 1


@pytest.fixture
def training(monkeypatch, tmp_path):
    asked = []
    run, plot = types.ModuleType("redraft.train.run"), types.ModuleType("redraft.train.plot")

    def train(recipe, overrides, data, judge):
        assert callable(judge)
        print("step 1")
        asked.append((recipe, overrides, data))
        return {"loss_nats": 0.123456, "checkpoint": "runs/a", "steps": 10, "curve": [1, 2]}

    run.train = train
    plot.plot_run = lambda *given: asked.append(given) or tmp_path / "plot.png"
    monkeypatch.setitem(sys.modules, run.__name__, run)
    monkeypatch.setitem(sys.modules, plot.__name__, plot)
    recipe = tmp_path / "mini.yaml"
    recipe.write_text("steps: 10\n")
    return recipe, asked


def test_train_prints_a_table_and_logs_on_stderr(training, capsys):
    recipe, asked = training
    assert main(["train", str(recipe), "--set", "steps=5", "--set", "seed=1"]) == 0
    assert asked == [(recipe, ["steps=5", "seed=1"], None)]
    table = "loss_nats   0.1235\ncheckpoint  runs/a\nsteps       10\ncurve       [1, 2]\n"
    assert capsys.readouterr() == (table, "step 1\n")


def test_train_json_and_data(training, capsys):
    recipe, asked = training
    assert main(["train", str(recipe), "--data", str(recipe), "--json"]) == 0
    assert asked == [(recipe, [], recipe)]
    assert json.loads(capsys.readouterr().out)["loss_nats"] == 0.123456


def test_train_plot_prints_the_path_and_does_not_train(training, capsys):
    recipe, asked = training
    assert main(["train", str(recipe), "--plot", "--set", "a=1", "--data", str(recipe)]) == 0
    assert asked == [(recipe, ["a=1"], recipe)]
    assert capsys.readouterr().out == f"{recipe.parent / 'plot.png'}\n"
