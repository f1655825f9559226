"""The real server process with the bundled model, over real HTTP."""

from __future__ import annotations

import http.client
import json
import signal

import openai
import pytest

from servers import KEY, ask, serving, wait_until

TEXT = "play something by Nina Simone on Spotify"
MESSAGES = [{"role": "user", "content": TEXT}]


@pytest.fixture(scope="module")
def served():
    """(process, port) of a server."""
    with serving("--threads", "1") as started:
        yield started


def chat(port: int, **fields):
    status, data = ask(port, "POST", "/v1/chat/completions", {"model": "mini", "messages": MESSAGES, **fields})
    return status, json.loads(data)


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served[1]}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_the_openai_client_gets_a_call_and_sends_its_result(client):
    reply = client.chat.completions.create(model="mini", messages=MESSAGES, seed=0)
    call = reply.choices[0].message.tool_calls[0]
    assert reply.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "PlayMusic"
    assert json.loads(call.function.arguments) == {"artist": "Nina Simone", "service": "Spotify"}
    assert reply.usage.completion_tokens > 0
    after = [*MESSAGES, reply.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "playing"}]
    again = client.chat.completions.create(model="mini", messages=after, seed=0)
    assert again.choices[0].message.content is not None or again.choices[0].message.tool_calls


def test_streams_say_what_plain_replies_say(client):
    messages = [{"role": "user", "content": "how do i bake bread"}]
    whole = client.chat.completions.create(model="mini", messages=messages, seed=3)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="mini", messages=messages, seed=3, **options))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    called = list(client.chat.completions.create(model="mini", messages=MESSAGES, seed=0, stream=True))
    calls = [call for chunk in called for call in (chunk.choices[0].delta.tool_calls or ())]
    assert [call.function.name for call in calls] == ["PlayMusic"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in called) == ""


def test_drafts_paint_the_canvas_that_is_committed(client):
    extra = {"diffusion": {"drafts": True}}
    stream = client.chat.completions.create(model="mini", messages=MESSAGES, seed=0, stream=True, extra_body=extra)
    frames, raw = [], ""
    for chunk in stream:
        extras = chunk.model_extra.get("redraft") or {}
        frames += [extras["draft"]] if "draft" in extras else []
        raw = extras.get("raw", raw)
    texts: list[str] = []
    for frame in frames:
        texts = (texts + [""] * frame["length"])[: frame["length"]]
        for place, text in frame["set"]:
            texts[place] = text
        assert len(frame["entropy"]) == frame["length"]
    assert len(frames) > 1
    assert "".join(texts).replace(" ", "").startswith(raw.replace(" ", ""))


def test_schemas_choices_and_seeds(client, served):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "age", "schema": schema}}
    reply = client.chat.completions.create(model="mini", messages=MESSAGES, response_format=wanted, seed=1, n=2)
    texts = [choice.message.content for choice in reply.choices]
    assert all(isinstance(json.loads(text)["age"], int) for text in texts)
    alone = client.chat.completions.create(model="mini", messages=MESSAGES, response_format=wanted, seed=2)
    assert alone.choices[0].message.content == texts[1]
    _, scored = chat(served[1], logprobs=True, seed=0)
    assert all(token["logprob"] <= 0 for token in scored["choices"][0]["logprobs"]["content"])


def test_the_other_routes(served):
    port = served[1]
    fill = {"model": "mini", "text": "It is [[...]] o'clock.", "seed": 0, "max_tokens": 30}
    filled = json.loads(ask(port, "POST", "/v1/infill", fill)[1])
    assert filled["text"] == f"It is {filled['filled'][0]} o'clock."
    ids = json.loads(ask(port, "POST", "/v1/tokenize", {"model": "mini", "text": "play jazz"})[1])["tokens"]
    plain = {"model": "mini", "prompt": ids, "max_tokens": 8, "seed": 0, "echo": True}
    assert json.loads(ask(port, "POST", "/v1/completions", plain)[1])["choices"][0]["text"]
    assert json.loads(ask(port, "GET", "/v1/models")[1])["data"][0]["id"] == "mini"
    assert b'redraft_requests_total{finish_reason="tool_calls",model="mini"}' in ask(port, "GET", "/metrics")[1]
    assert b"<script" in ask(port, "GET", "/", key=None)[1]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"functions": []}, "functions"),
        ({"top_p": 0.5}, "top_p"),
        ({"n": 10**9}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"diffusion": {"speed": 1}}, "diffusion.speed"),
        ({"response_format": {"type": "regex", "pattern": "(a|b)*a(a|b){30}"}}, "response_format"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages"),
        ({"messages": [{"role": "user", "content": "hi"}] * 100_000}, "messages"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_honoured_is_refused_by_name(served, fields, param):
    status, answer = chat(served[1], **fields)
    assert status == 400
    assert answer["error"]["param"] == param
    assert answer["error"]["message"]


def test_unusable_bodies(served):
    port, path = served[1], "/v1/chat/completions"
    assert ask(port, "POST", path, b"[" * 2**20)[0] == 400
    deep = b'{"model":"mini","messages":[{"role":"user","content":"a","x":' + b"[" * 500 + b"]" * 500 + b"}]}"
    assert ask(port, "POST", path, deep)[0] == 400
    assert ask(port, "POST", path, b'{"model":"\xff"}')[0] == 400
    assert ask(port, "POST", path, b'{"model":"mini","messages":[{"role":"user","content":"\\ud800"}]}')[0] == 400
    assert ask(port, "POST", path, b"{}", headers={"content-length": "104857600"})[0] == 413
    assert chat(port, seed=0)[0] == 200


def test_doors(served):
    port = served[1]
    assert ask(port, "GET", "/v1/models", key=None)[0] == 401
    assert ask(port, "GET", "/metrics", key="wrong")[0] == 401
    assert ask(port, "GET", "/openapi.json", key=None)[0] == 401
    assert ask(port, "GET", "/health", key=None)[0] == 200
    assert ask(port, "GET", "/health", headers={"host": "evil.example"})[0] == 403
    assert ask(port, "GET", "/v1/models", headers={"origin": "https://evil.example"})[0] == 403
    assert ask(port, "GET", "/v1/models", headers={"origin": f"http://127.0.0.1:{port}"})[0] == 200


def test_a_client_that_hangs_up_frees_its_place(served):
    port = served[1]
    for stream in (True, False):
        body = {"model": "mini", "messages": MESSAGES, "stream": stream, "diffusion": {"mode": "autoregressive"}}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        connection.close()
    wait_until(lambda: b"redraft_queue 0.0" in ask(port, "GET", "/metrics")[1], 10)


def test_it_drains_when_told_to_stop(served):
    process, port = served
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"model": "mini", "messages": MESSAGES, "seed": 0, "stream": True, "n": 8}
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: ask(port, "GET", "/ready", key=None)[0] == 503, 5)
    assert chat(port)[0] == 503
    text = answer.read().decode()
    connection.close()
    assert text.endswith("data: [DONE]\n\n")
    assert text.count('"finish_reason": "tool_calls"') >= 8
    process.wait(30)
