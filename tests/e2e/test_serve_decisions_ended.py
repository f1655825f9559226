"""Decisions that nobody waits for any more, that take too long, or that an operator looks at."""

from __future__ import annotations

import json
import socket
import threading

from servers import KEY, ask, serving, serving_with, wait_until

TEXT = "play something by Nina Simone on Spotify"
MUSIC = {"type": "predicate", "instructions": "Is it about music?"}
TWICE = {"type": "choice", "instructions": "Which?", "choices": [{"value": "a"}, {"value": "a"}]}
BODY = {"model": "mini", "input": TEXT, "questions": [MUSIC]}
MAPPED = {"state": {"message": TEXT}, "questions": {"music": {**MUSIC, "type": "noul"}}}
# A step that moves nothing but what is to end.
SLOW = """
import time
running = engine.running

def slow():
    found = running()
    step = found.step

    def held():
        time.sleep(0.02)
        return step() if any(one.sequence.finished for one in found._requests.values()) else []

    found.step = held
    return found

engine.running = slow
"""


def counted(port, line: str) -> bool:
    return line in ask(port, "GET", "/metrics")[1].decode()


def test_a_client_that_hangs_up_gives_its_place_back():
    with serving_with(SLOW) as (_, port):
        body = json.dumps(BODY).encode()
        lines = ["POST /v1/decisions HTTP/1.1", "host: 127.0.0.1", f"authorization: Bearer {KEY}"]
        lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall("\r\n".join(lines).encode() + body)
            wait_until(lambda: counted(port, "redraft_running 1.0"))
        wait_until(
            lambda: counted(port, "redraft_queue 0.0") and counted(port, 'finish_reason="cancelled",model="mini"} 1.0')
        )


def test_a_deadline_and_an_end():
    with serving_with(SLOW, request_timeout_s=0.5, drain_s=0.1) as (_, port):
        status, data = ask(port, "POST", "/v1/systemone", MAPPED)
        assert (status, json.loads(data)["error"]["code"]) == (504, "timeout")
    with serving_with(SLOW, drain_s=0.1) as (process, port):
        told = []
        thread = threading.Thread(target=lambda: told.append(ask(port, "POST", "/v1/systemone", MAPPED)[0]))
        thread.start()
        wait_until(lambda: counted(port, "redraft_running 1.0"))
        process.terminate()
        thread.join(30)
        assert told == [503]
        process.wait(30)


def test_counted_and_written_down(tmp_path):
    log = tmp_path / "prompts.jsonl"
    with serving_with() as (process, port):
        body = {"model": "mini", "input": "a secret", "questions": [MUSIC, TWICE]}
        assert ask(port, "POST", "/v1/decisions", body)[0] == 200
        page = ask(port, "GET", "/metrics")[1].decode()
        assert 'redraft_questions_total{result="answered",type="predicate"} 1.0' in page
        assert 'redraft_questions_total{result="refused",type="none"} 1.0' in page
        assert "redraft_decisions_seconds_count 1.0" in page
        wait_until(lambda: any("route=/v1/decisions" in line for line in process.said))
        [line] = [line for line in process.said if "route=/v1/decisions" in line]
        assert "status=200" in line
        assert "generated_tokens=0" in line
        assert "prompt_tokens=-" not in line
        assert "secret" not in line
    with serving("--threads", "1", "--log-prompts", str(log)) as (_, port):
        assert ask(port, "POST", "/v1/systemone", MAPPED)[0] == 200
    asked, replied = (json.loads(line) for line in log.read_text().splitlines())
    assert asked["request"]["state"] == {"message": TEXT}
    assert replied["id"] == asked["id"]
    assert len(replied["reply"]["answers"]) == 1
