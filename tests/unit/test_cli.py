"""The command line against a scripted engine: what goes where, and with which exit code."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from cli_fakes import CALL, FakeEngine, generation, stats

import redraft
from redraft.cli import main
from redraft.cli.options import generation_flags
from redraft.cli.show import printable
from redraft.core.errors import ContextLengthError, GenerationError, PromptError
from redraft.core.options import GenerationOptions

LINE = 'AddToPlaylist(artist="Daft Punk", playlist="Sunday morning")\n'


@pytest.fixture
def engine(monkeypatch):
    engine = FakeEngine()
    engine.loads = []

    def load(model, **settings):
        engine.loads.append((model, settings))
        return engine

    # Not setattr, which would first look at the real one and so import torch.
    monkeypatch.setitem(vars(redraft), "load", load)
    return engine


def fails_with(monkeypatch, error):
    def load(model, **settings):
        raise error

    monkeypatch.setitem(vars(redraft), "load", load)


def test_plain_run_prints_the_call_and_nothing_else_on_stdout(engine, capsys):
    assert main(["run", "hi"]) == 0
    out, err = capsys.readouterr()
    assert out == LINE
    assert (
        err == "1 canvas · 8 steps · 23 tokens · 2.9 tokens/forward · 460 tokens/s · first canvas in 0.04 s · seed 7\n"
    )


def test_quiet_leaves_the_summary_out(engine, capsys):
    assert main(["run", "hi", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_text_goes_to_stdout_and_the_thought_to_stderr(engine, capsys):
    engine.reply = generation(text="Hello.", reasoning="greet back", tool_calls=(), finish_reason="stop")
    assert main(["run", "hi", "-q"]) == 0
    assert capsys.readouterr() == ("Hello.\n", "greet back\n")


def test_an_empty_reply_is_said_to_be_one(engine, capsys):
    engine.reply = generation(tool_calls=())
    assert main(["run", "hi", "-q"]) == 0
    assert capsys.readouterr() == ("", "(empty reply)\n")


def test_a_reply_that_was_cut_says_so(engine, capsys):
    engine.reply = generation(text="a", tool_calls=(), finish_reason="length", stats=stats(canvases=2))
    assert main(["run", "hi"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("2 canvases · ")
    assert err.endswith("cut at 23 tokens (max_new_tokens)\n")


def test_json_is_the_generation_and_nothing_else(engine, capsys):
    assert main(["run", "hi", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(json.dumps(engine.reply.to_dict()))
    assert json.loads(out)["tool_calls"][0]["arguments"] == CALL.arguments
    assert err == ""


def test_options_that_were_given_reach_the_engine_and_no_others(engine):
    flags = ["--seed", "3", "--t-max", "0.5", "--no-enable-thinking", "--max-new-tokens", "9"]
    assert main(["run", "hi", *flags]) == 0
    given = {"seed": 3, "t_max": 0.5, "enable_thinking": False, "max_new_tokens": 9}
    assert engine.asked == [("hi", given)]
    assert main(["run", "hi"]) == 0
    assert engine.asked[1] == ("hi", {})


def test_loading_flags_reach_load(engine):
    assert main(["run", "hi", "--model", "m", "--device", "cpu", "--dtype", "float32", "--threads", "2"]) == 0
    given = {"device": "cpu", "dtype": "float32", "threads": 2}
    unset = {"quantize": None, "memory_gb": None, "max_context": None, "verify": False, "vision": "lazy"}
    assert engine.loads == [("m", given | unset)]


def test_flags_are_the_scalar_options_that_work():
    flags = generation_flags()
    assert {"seed", "temperature", "t_min", "tool_choice", "preset", "redraft"} <= set(flags)
    assert "pinned" not in flags
    samples = {int: 2, float: 0.3, bool: True, str: "none"}
    special = {
        "mode": "autoregressive",
        "top_p": 1.0,
        "preset": "fast",
        "sampler": "confidence",
        "stop": ["a"],
        "response_format": {"type": "text"},
        "image_tokens": 140,
        "image_attention": "generate",
    }
    special |= {"tools": [{"function": {"name": "f"}}]}
    for name, parameter in flags.items():
        kind = parameter.annotation.__origin__.__args__[0]
        value = special[name] if name in special else samples[kind]
        GenerationOptions(t_min=0.0, t_max=1.0).with_changes(**{name: value})
        assert parameter.annotation.__metadata__[0].help, f"no line for {name} in the docstring"


def test_pictures_stand_before_the_text(engine):
    given = ["--image", "a.png", "--video", "c.mp4", "--image", "b.jpg"]
    assert main(["run", "what?", *given, "--image-tokens", "70"]) == 0
    pictures = [{"type": "image", "image": name} for name in ("a.png", "b.jpg")]
    pictures.append({"type": "video", "video": "c.mp4"})
    [(prompt, options)] = engine.asked
    assert prompt == [{"role": "user", "content": [*pictures, {"type": "text", "text": "what?"}]}]
    assert options == {"image_tokens": 70}


def test_a_dash_reads_standard_input(engine, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("play\nsome jazz\n"))
    assert main(["run", "-"]) == 0
    assert engine.asked[0][0] == "play\nsome jazz"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "hi", "--tmax", "1"], "--t-max"),
        (["run", "hi", "--t-max", "warm"], "--t-max"),
        (["run", "hi", "--top-q", "0.5"], "--top-q"),
        (["run", "hi", "there"], "there"),
        (["run"], "TEXT"),
        (["run", "hi", "--live", "--json"], "drop one"),
        (["sing"], "sing"),
        (["train", "missing.yaml"], "missing.yaml"),
        (["eval", "text"], "--data"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(engine, capsys, arguments, word):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("redraft: ")
    assert err.count("\n") == 1
    assert word in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PromptError("the prompt is empty: say something"), 2),
        (ContextLengthError(9, 8), 2),
        (GenerationError("not a number in step 3"), 1),
        (RuntimeError("two\nlines \x1b[31mred"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_exit_codes(monkeypatch, capsys, error, code):
    fails_with(monkeypatch, error)
    assert main(["run", "hi"]) == code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert err.count("\n") == (0 if code == 130 else 1)
    assert ("--debug" in err) == (code == 1)


def test_debug_shows_the_traceback(monkeypatch, capsys):
    fails_with(monkeypatch, RuntimeError("inside"))
    assert main(["--debug", "run", "hi"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("redraft: RuntimeError: inside\n")


@pytest.mark.parametrize("flags", [[], ["--json"], ["--live"]])
def test_a_request_that_failed_is_exit_code_1(engine, capsys, flags):
    engine.reply = generation(tool_calls=(), text="so far", finish_reason="error", error="cache lost")
    assert main(["run", "hi", *flags]) == 1
    out, err = capsys.readouterr()
    assert "so far" in out
    assert err.startswith("redraft: cache lost")


def test_what_the_model_writes_cannot_steer_the_terminal(engine, capsys):
    engine.reply = generation(
        text="a\x1b[2Jb\x1b]0;title\x07c\rd\x9be\u202ef\tg\nh", reasoning="\x1b[8mhidden", tool_calls=()
    )
    assert main(["run", "hi", "-q"]) == 0
    assert capsys.readouterr() == ("abcdef\tg\nh\n", "hidden\n")


def test_printable_keeps_what_follows_an_open_sequence():
    assert printable("a\x1b]0;no end\nb\x1b") == "a0;no end\nb"
    assert printable("naïve 日本 👩‍🚀 ⏎") == "naïve 日本 👩‍🚀 ⏎"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"redraft {redraft.__version__}\n"


def test_importing_the_command_line_is_light():
    code = "import sys, redraft.cli; print(*[m for m in ('torch', 'rich.live', 'numpy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
