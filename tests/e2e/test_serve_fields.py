"""Fields with probabilities over real HTTP."""

from __future__ import annotations

import json

import pytest

from servers import ask, serving

SCHEMA = {
    "type": "object",
    "properties": {"loud": {"type": "boolean"}, "mood": {"enum": ["happy", "sad"]}},
    "required": ["loud", "mood"],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "song", "schema": SCHEMA}}
BODY = {
    "model": "mini",
    "messages": [{"role": "user", "content": "play some jazz"}],
    "seed": 0,
    "response_format": FORMAT,
}


@pytest.fixture(scope="module")
def port():
    with serving("--threads", "1") as (_, port):
        yield port


def test_a_reply_brings_its_fields(port):
    status, data = ask(port, "POST", "/v1/chat/completions", {**BODY, "diffusion": {"probabilities": True}})
    assert status == 200
    reply = json.loads(data)
    written = json.loads(reply["choices"][0]["message"]["content"])
    fields = reply["redraft"][0]["fields"]
    assert [(field["path"], field["source"]) for field in fields] == [(["loud"], "canvas"), (["mood"], "canvas")]
    for field in fields:
        assert field["value"] == written[field["path"][0]]
        assert sum(each["probability"] for each in field["probabilities"]) == pytest.approx(1)
    _, data = ask(port, "POST", "/v1/chat/completions", BODY)
    assert json.loads(data)["redraft"][0]["fields"] == []
    assert json.loads(data)["choices"][0]["message"] == reply["choices"][0]["message"]


def test_a_stream_ends_with_them(port):
    body = {**BODY, "stream": True, "diffusion": {"probabilities": True}}
    _, data = ask(port, "POST", "/v1/chat/completions", body)
    chunks = [json.loads(part[6:]) for part in data.decode().split("\n\n") if part.startswith("data: {")]
    told = [chunk["redraft"] for chunk in chunks if "fields" in json.dumps(chunk.get("redraft", ""))]
    assert told
    assert "probabilities" in json.dumps(told)


def test_without_a_schema_it_is_refused(port):
    body = {name: value for name, value in BODY.items() if name != "response_format"}
    status, data = ask(port, "POST", "/v1/chat/completions", {**body, "diffusion": {"probabilities": True}})
    assert status == 400
    assert "probabilities" in json.loads(data)["error"]["message"]
