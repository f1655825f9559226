"""What a server tells: its operator of each request, a client of what there is, and nobody of a key."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess

import pytest

from redraft.checkpoint.locate import BUNDLED
from redraft.server.settings import Settings
from servers import KEY, REDRAFT, Served, ask, serving, wait_until

SECRET = "a-key-of-the-operator's-own"
SAID = "play something that nobody may read in a log"
LINE = re.compile(
    r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z method=(\S+) route=(\S+) model=\S+ key=(\S+) status=(\d+) "
    r"prompt_tokens=(\S+) generated_tokens=(\S+) seconds=(\d+\.\d{3})\n"
)


@pytest.fixture(scope="module")
def served():
    with serving("--threads", "1") as started:
        yield started


def chat(port: int, **fields) -> tuple[int, dict]:
    body = {"model": "mini", "messages": [{"role": "user", "content": SAID}], "seed": 0, **fields}
    status, data = ask(port, "POST", "/v1/chat/completions", body)
    return status, json.loads(data)


def line_after(process: Served, route: str, asked) -> tuple[str, ...]:
    """The fields of the line about this route that calling `asked` adds."""

    def found() -> list[re.Match[str]]:
        lines = [LINE.fullmatch(line) for line in process.said]
        return [line for line in lines if line and line[2] == route]

    before = len(found())
    asked()
    wait_until(lambda: len(found()) > before, 5)
    return found()[-1].groups()


def test_each_request_has_a_line(served):
    process, port = served
    key, answers = Settings(api_key=KEY).key_id, []
    line = line_after(process, "/v1/chat/completions", lambda: answers.append(chat(port)[1]))
    method, _, by, code, prompt, generated, seconds = line
    assert (method, by, code) == ("POST", key, "200")
    usage = answers[0]["usage"]
    assert (int(prompt), int(generated)) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert 0 < float(seconds) < 60
    body = {"model": "mini", "messages": [{"role": "user", "content": SAID}], "stream": True, "seed": 0}
    streamed = line_after(process, line[1], lambda: ask(port, "POST", "/v1/chat/completions", body))
    assert streamed[:6] == line[:6]
    other = line_after(process, "/v1/models/{name:path}", lambda: ask(port, "GET", "/v1/models/mini"))
    assert other[2:6] == (key, "200", "-", "-")


def test_who_is_turned_away_has_one_too(served):
    process, port = served
    line = line_after(process, '"/v1/tools"', lambda: ask(port, "GET", "/v1/tools", key="not the key"))
    assert line[2:4] == ("-", "401")
    line = line_after(process, "/v1/chat/completions", lambda: chat(port, temperature=-1))
    assert line[3:6] == ("400", "-", "-")


def test_nothing_that_was_said_and_no_forged_line_stands_there(served):
    process, port = served
    forged = "/v1/a%0Atime=2026-01-01T00:00:00.000Z%20method=GET%20route=/%20key=-%20status=200"
    assert ask(port, "GET", forged + "x" * 500)[0] == 404
    wait_until(lambda: any("/v1/a\\ntime" in line for line in process.said), 5)
    lines = [line for line in process.said if line.startswith("time=")]
    assert not [line for line in lines if "status=200" in line and line.startswith("time=2026-01-01")]
    assert max(map(len, lines)) < 400
    assert all(LINE.fullmatch(line) for line in lines)
    log = "".join(process.said)
    assert "nobody" not in log
    assert KEY not in log


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/chat/completions", "/v1"])
def test_an_unknown_route_says_what_there_is(served, path):
    status, data = ask(served[1], "POST", path, {})
    error = json.loads(data)["error"]
    assert (status, error["code"]) == (404, "not_found")
    assert f"no POST {path} here" in error["message"]
    assert "POST /v1/chat/completions" in error["message"]
    assert "GET /v1/models" in error["message"]


def test_a_wrong_method_says_the_right_one(served):
    status, data = ask(served[1], "GET", "/v1/chat/completions")
    error = json.loads(data)["error"]
    assert (status, error["message"]) == (405, "/v1/chat/completions takes POST, not GET")


@pytest.mark.parametrize("top_p", [0.9, 0.95, 0.999])
def test_a_wide_top_p_is_taken_and_said_to_be_ignored(served, top_p):
    port = served[1]
    status, answer = chat(port, top_p=top_p)
    _, without = chat(port)
    assert status == 200
    assert answer["redraft"][0]["ignored"] == ["top_p"]
    assert without["redraft"][0]["ignored"] == []
    assert answer["redraft"][0]["raw"] == without["redraft"][0]["raw"]
    assert chat(port, top_p=1)[1]["redraft"][0]["ignored"] == []
    causal = chat(port, top_p=top_p, diffusion={"mode": "autoregressive"})[1]
    assert causal["redraft"][0]["ignored"] == []
    body = {"model": "mini", "prompt": "play", "top_p": top_p, "max_tokens": 4, "stream": True}
    chunks = ask(port, "POST", "/v1/completions", body)[1].decode().split("\n\n")
    assert json.loads(chunks[-3].removeprefix("data: "))["redraft"]["ignored"] == ["top_p"]


def test_a_narrow_top_p_is_refused_by_name(served):
    status, answer = chat(served[1], top_p=0.89)
    assert (status, answer["error"]["param"]) == (400, "top_p")
    assert "0.9" in answer["error"]["message"]


@pytest.mark.parametrize("way", ["argument", "file", "variable"])
def test_a_key_that_someone_gave_is_not_printed(tmp_path, monkeypatch, way):
    arguments = ["--port", "0", "--dtype", "float32"]
    if way == "argument":
        arguments += ["--api-key", SECRET]
    elif way == "file":
        (tmp_path / "key").write_text(SECRET + "\n")
        (tmp_path / "key").chmod(0o600)
        arguments += ["--api-key-file", str(tmp_path / "key")]
    else:
        monkeypatch.setenv("REDRAFT_API_KEY", SECRET)
    process = Served([*REDRAFT, "serve", *arguments])
    try:
        port = process.port()
        wait_until(lambda: ask(port, "GET", "/ready", key=None)[0] == 200)
        assert ask(port, "GET", "/v1/models", key=SECRET)[0] == 200
        assert ask(port, "GET", "/v1/models", key=KEY)[0] == 401
        assert SECRET not in "".join(process.said)
        assert "#key=" not in "".join(process.said)
    finally:
        process.end()


def test_a_short_key_stays_on_this_machine():
    command = [*REDRAFT, "serve", "--port", "0", "--host", "0.0.0.0", "--api-key", "short"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "16" in done.stderr


@pytest.mark.parametrize("where", ["a full pipe", "a full disk", "nowhere"])
def test_a_log_that_nobody_takes_holds_nobody_up(where):
    command = [*REDRAFT, "serve", "--port", (port := str(free_port())), "--dtype", "float32", "--api-key", KEY]
    reading, writing = os.pipe()
    if where == "nowhere":
        command = ["sh", "-c", f"exec {shlex.join(command)} 2>&-"]
    elif where == "a full disk":
        command = ["sh", "-c", f"exec {shlex.join(command)} 2>/dev/full"]
    with subprocess.Popen(command, stderr=writing) as process:
        try:
            wait_until(lambda: ask(int(port), "GET", "/ready", key=None)[0] == 200, 60)
            for _ in range(700):
                assert ask(int(port), "GET", "/health", key=None, timeout=10)[0] == 200
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        finally:
            process.kill()
            os.close(reading)
            os.close(writing)
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def test_the_folder_that_someone_stands_in_names_the_model(tmp_path):
    shutil.copytree(BUNDLED / "mini", tmp_path / "its-name")
    process = Served([*REDRAFT, "serve", "--port", "0", "--api-key", KEY, "--model", "."], cwd=tmp_path / "its-name")
    try:
        port = process.port()
        assert json.loads(ask(port, "GET", "/v1/models")[1])["data"][0]["id"] == "its-name"
    finally:
        process.end()


@pytest.mark.parametrize("origin", ["http://[", "http://[::", "null", "http://elsewhere"])
def test_an_origin_that_is_none_is_a_foreign_one(served, origin):
    assert ask(served[1], "GET", "/health", headers={"origin": origin})[0] == 403
