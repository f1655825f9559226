"""The examples, run as they stand against a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from servers import KEY, serving

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def environment():
    with serving("--threads", "1") as (_, port):
        yield {**os.environ, "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": KEY}


def output(name: str, environment) -> str:
    command = ["bash"] if name.endswith(".sh") else [sys.executable]
    done = subprocess.run(
        [*command, str(EXAMPLES / name)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_every_example_is_run_and_named():
    named = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        assert path.name == "README.md" or (f"`{path.name}`" in named and f'"{path.name}"' in tests), path.name


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl(environment):
    models, reply, *stream, filled = [line for line in output("curl.sh", environment).splitlines() if line]
    assert json.loads(models)["data"][0]["id"] == "mini"
    assert json.loads(reply)["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "PlayMusic"
    assert sum('"draft"' in line for line in stream) >= 1
    assert stream[-1] == "data: [DONE]"
    assert json.loads(filled)["filled"] == ["Nina Simone"]


def test_the_openai_client(environment):
    lines = output("plain.py", environment).splitlines()
    assert lines[0].startswith('RateBook {"object_select": "this", "object_type": "book", "rating_value": "five"')
    assert int(lines[-1].split()[0]) <= 8
    lines = output("drafts.py", environment).splitlines()
    assert len(lines) > 3
    assert "[" in lines[0]
    assert 'artist:<|"|> Nina Simone<|"|>' in lines[-2]
    assert output("json_schema.py", environment) == "PlayMusic(artist='Nina Simone', service='Spotify')\n"


def test_agents(environment):
    """They end with what somebody asked for."""
    assert output("agent_loop.py", environment).splitlines() == [
        "what is the weather in Oslo",
        '  GetWeather {"city": "Oslo"} -> 7 degrees and dry in Oslo',
        "7 degrees and dry in Oslo",
        "play something by Nina Simone on Spotify",
        '  PlayMusic {"artist": "Nina Simone", "service": "Spotify"} -> now playing Nina Simone on Spotify',
        "now playing Nina Simone on Spotify",
    ]
    assert output("pydantic_ai_agent.py", environment) == "7 degrees and dry in Oslo\n"


def test_the_tools_as_a_question():
    said = ["decide", "--text", "play something by Nina Simone on Spotify", "--threads", "1", "--json"]
    command = [sys.executable, "-m", "redraft", *said, "--questions", str(EXAMPLES / "tools.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)["answers"]
    assert (answer["name"], answer["answer"]) == ("tool", "PlayMusic")
    assert sum(each["probability"] for each in answer["probabilities"]) == pytest.approx(1)
