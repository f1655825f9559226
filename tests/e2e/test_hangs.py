"""What hangs is answered all the same, shows at the door, and does not outlive the server's end."""

from __future__ import annotations

import json
import shutil
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException

import pytest

from redraft.checkpoint.locate import BUNDLED
from servers import Served, ask, serving_with, wait_until

# What someone asks decides whether their preparation ends.
PREPARING = """
import threading, time
prepare = engine.prepare

def hanging(prompt, *arguments, **more):
    text = prompt[-1]["content"] if isinstance(prompt[-1], dict) else ""
    if "hang" in text:
        threading.Event().wait()
    if "wait" in text:
        time.sleep(1.5)
    return prepare(prompt, *arguments, **more)

engine.prepare = hanging
"""
STEPPING = """
import threading
running = engine.running

def hanging():
    found = running()
    step = found.step
    def stopped():
        if any("hang" in engine.tokenizer.decode(one.sequence.prompt) for one in found._requests.values()):
            threading.Event().wait()
        return step()
    found.step = stopped
    return found

engine.running = hanging
"""
LOOP = "{% for i in range(99999) %}"


def chat(port: int, text: str, **more) -> tuple[int, str]:
    body = {"model": "mini", "messages": [{"role": "user", "content": text}], "seed": 0, **more}
    status, answer = ask(port, "POST", "/v1/chat/completions", body)
    return status, answer.decode()


def code(answer: str) -> str:
    """Of an error, or of the one that ends a stream."""
    first = answer.removeprefix("data: ").split("\n\n")[-3 if "data: [DONE]" in answer else 0].removeprefix("data: ")
    return json.loads(first)["error"]["code"]


def ready(port: int) -> int:
    return ask(port, "GET", "/ready", key=None)[0]


def ends(process: Served, seconds: float, sent: signal.Signals = signal.SIGTERM) -> float:
    """Sends it the end; how long it took."""
    began = time.monotonic()
    process.send_signal(sent)
    process.wait(seconds)
    assert process.returncode in (-sent, 128 + sent)
    return time.monotonic() - began


@pytest.fixture
def clients():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_a_template_without_end_holds_up_its_own_requests(tmp_path, clients):
    directory = tmp_path / "mini"
    shutil.copytree(BUNDLED / "mini", directory)
    template = (directory / "chat_template.jinja").read_text()
    loops = "{% if 'hang' in messages[-1].content %}" + 3 * LOOP + 3 * "{% endfor %}" + "{% endif %}"
    (directory / "chat_template.jinja").write_text(loops + template)
    short = "from redraft.text import guarded_template; guarded_template.TIMEOUT_S = 0.6"
    with serving_with(short, served=str(directory), drain_s=2) as (process, port):
        hung = [clients.submit(chat, port, "hang") for _ in range(9)]
        for _ in range(3):
            status, answer = ask(port, "POST", "/v1/completions", {"model": "mini", "prompt": "play", "max_tokens": 4})
            assert status == 200, answer
            assert ready(port) == 200
        for one in hung:
            status, answer = one.result()
            assert status == 400
            assert "the chat template ran for 0.6 s" in json.loads(answer)["error"]["message"]
        assert chat(port, "play some jazz")[0] == 200
        hung = [clients.submit(chat, port, "hang") for _ in range(4)]
        time.sleep(0.2)
        assert ends(process, 20) < 10
        assert {one.result()[0] for one in hung} <= {400, 503}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_preparation_counts_in_the_timeout(clients, sent):
    with serving_with(PREPARING, request_timeout_s=1.0, drain_s=1.0, still_s=1.0) as (process, port):
        began = time.monotonic()
        hung = [clients.submit(chat, port, "hang", stream=number % 2 == 0) for number in range(10)]
        assert [one.result()[0] for one in hung] == [504] * 10
        assert {code(one.result()[1]) for one in hung} == {"timeout"}
        assert time.monotonic() - began < 8
        # Eight threads hang: what needs none is answered, what needs one is not, and the door says so.
        assert ask(port, "GET", "/v1/models")[0] == 200
        wait_until(lambda: ready(port) == 503)
        assert b"standing still" in ask(port, "GET", "/ready", key=None)[1]
        assert ask(port, "POST", "/v1/tokenize", {"model": "mini", "text": "play"})[0] == 504
        assert ends(process, 20, sent) < 8
    assert not [line for line in process.said if "Traceback" in line]


def test_preparation_counts_in_the_drain(clients):
    with serving_with(PREPARING, drain_s=3.0) as (process, port):
        slow, hung = clients.submit(chat, port, "wait"), clients.submit(chat, port, "hang")
        time.sleep(0.5)
        assert ends(process, 20) < 12
        assert slow.result()[0] == 200
        status, answer = hung.result()
        assert (status, code(answer)) == (503, "shutting_down")


def test_an_engine_that_hangs_is_answered_for(clients):
    with serving_with(STEPPING, request_timeout_s=3.0, drain_s=1.0, still_s=1.0) as (process, port):
        assert chat(port, "play some jazz")[0] == 200
        hung: list[Future] = [clients.submit(chat, port, "hang", stream=number % 2 == 0) for number in range(4)]
        status, answer = hung[1].result()
        assert (status, code(answer)) == (504, "timeout")
        assert code(hung[0].result()[1]) == "timeout"
        assert ready(port) == 503
        late = clients.submit(chat, port, "play some jazz")
        time.sleep(0.2)
        assert ends(process, 20) < 12
        assert late.result()[0] in (503, 504)


def test_a_second_signal_does_not_wait(clients):
    with serving_with(PREPARING, drain_s=60.0) as (process, port):
        hung = clients.submit(chat, port, "hang")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        assert ends(process, 20) < 10
        assert isinstance(hung.exception(), OSError | HTTPException) or hung.result()[0] == 503
