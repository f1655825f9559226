"""Adapters over HTTP: chosen by name, side by side, loaded and unloaded while requests run."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import redraft
from servers import KEY, ask, serving, wait_until
from tuned import JAZZ, write_two

MESSAGES = [{"role": "user", "content": JAZZ}]
MODELS = ("mini", "first", "second")


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


@pytest.fixture(scope="module")
def directories(engine, tmp_path_factory):
    return write_two(engine.model, tmp_path_factory.mktemp("allowed"))


@pytest.fixture(scope="module")
def allowed(directories):
    return directories["first"].parent


@pytest.fixture(scope="module")
def port(directories, allowed):
    named = [part for name, place in directories.items() for part in ("--adapter", f"{name}={place}")]
    with serving("--threads", "1", *named, "--allow-adapters", str(allowed)) as (_, port):
        yield port


@pytest.fixture(scope="module")
def alone(engine, directories):
    """What each says to Python, by model; in tests/unit/test_adapters_beside.py that is what it says without others."""
    engines = {"mini": engine} | {name: engine.adapters.load(name, place) for name, place in directories.items()}
    found = {name: list(one.generate(MESSAGES, seed=0, logprobs=True).logprobs) for name, one in engines.items()}
    assert len({tuple(logprobs) for logprobs in found.values()}) == 3
    return found


def said(port, model):
    """The log-probabilities of what a model writes: to the last bit, or it is not the same."""
    body = {"model": model, "messages": MESSAGES, "seed": 0, "logprobs": True}
    status, data = ask(port, "POST", "/v1/chat/completions", body)
    reply = json.loads(data)
    assert (status, reply.get("model")) == (200, model), reply
    return [token["logprob"] for token in reply["choices"][0]["logprobs"]["content"]]


def client_of(port):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)


def refusal(port, method, path, body=None, **more):
    status, data = ask(port, method, path, body, **more)
    error = json.loads(data)["error"]
    return status, error["code"], error["param"], error["message"]


def test_models_are_listed_and_asked_for_by_name(port):
    with client_of(port) as client:
        listed = list(client.models.list())
        assert [model.id for model in listed] == list(MODELS)
        assert [model.model_extra.get("parent") for model in listed] == [None, "mini", "mini"]
        assert client.models.retrieve("second").model_extra["redraft"]["about"] is None
        *_, last = client.chat.completions.create(model="second", messages=MESSAGES, seed=0, stream=True)
        assert last.model == "second"
        with pytest.raises(openai.NotFoundError) as wrong:
            client.chat.completions.create(model="third", messages=MESSAGES)
        assert (wrong.value.code, wrong.value.param) == ("model_not_found", "model")
    for name, path, fields in (
        ("first", "tokenize", {"text": "play"}),
        ("second", "infill", {"text": "It is [[...]] o'clock.", "seed": 0}),
        ("first", "completions", {"prompt": "It is", "max_tokens": 4, "seed": 0}),
    ):
        assert json.loads(ask(port, "POST", f"/v1/{path}", {"model": name, **fields})[1])["model"] == name
    wait_until(lambda: b'finish_reason="stop",model="second"' in ask(port, "GET", "/metrics")[1])


def test_typed_questions_go_to_the_adapter(port):
    asked = {"input": JAZZ, "questions": [{"type": "predicate", "instructions": "Is it music?"}]}
    answers = [json.loads(ask(port, "POST", "/v1/decisions", {"model": name, **asked})[1]) for name in MODELS]
    assert [answer["model"] for answer in answers] == list(MODELS)
    assert len({answer["answers"][0]["probability"] for answer in answers}) == 3


def test_company_changes_nothing(port, alone):
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda name: said(port, name), MODELS * 2)) == [alone[name] for name in MODELS * 2]


def test_loaded_and_unloaded_at_run_time(port, alone, allowed):
    loaded = json.loads(ask(port, "POST", "/v1/adapters", {"name": "new", "path": "second"})[1])
    assert (loaded["id"], loaded["parent"]) == ("new", "mini")
    assert said(port, "new") == alone["second"]
    with client_of(port) as client:
        stream = client.chat.completions.create(model="new", messages=MESSAGES, seed=0, logprobs=True, stream=True)
        # It is under way.
        next(stream)
        gone = {"id": "new", "object": "model", "deleted": True}
        assert json.loads(ask(port, "DELETE", "/v1/adapters/new")[1]) == gone
        assert ask(port, "POST", "/v1/adapters", {"name": "new", "path": "first"})[0] == 200
        *_, last = stream
    assert [token.logprob for token in last.choices[0].logprobs.content] == alone["second"]
    assert said(port, "new") == alone["first"]
    assert ask(port, "DELETE", "/v1/adapters/new")[0] == 200
    assert refusal(port, "POST", "/v1/completions", {"model": "new", "prompt": "x"})[:2] == (404, "model_not_found")
    # By its own name, from a folder of that name.
    shutil.copytree(allowed / "first", allowed / "team" / "v2")
    assert ask(port, "POST", "/v1/adapters", {"name": "team/v2"})[0] == 200
    assert ask(port, "GET", "/v1/models/team/v2")[0] == 200
    assert ask(port, "DELETE", "/v1/adapters/team/v2")[0] == 200


def test_what_is_refused(port, allowed, tmp_path):
    (allowed / "link").symlink_to(tmp_path)
    (allowed / "empty").mkdir()
    for body, expected in (
        ({"name": "x", "path": "first/../../elsewhere"}, (403, "path_not_allowed", "path")),
        ({"name": "x", "path": "/etc"}, (403, "path_not_allowed", "path")),
        ({"name": "x", "path": "link"}, (403, "path_not_allowed", "path")),
        ({"name": "x", "path": "a\0b"}, (400, "invalid_value", "path")),
        ({"name": "x", "path": "nowhere"}, (404, "adapter_not_found", "path")),
        ({"name": "x", "path": "empty"}, (400, "invalid_adapter", "path")),
        ({"name": "x y", "path": "first"}, (400, "invalid_value", "name")),
        ({"name": "mini", "path": "first"}, (409, "name_taken", "name")),
        ({"name": "first", "path": "second"}, (409, "name_taken", "name")),
        ({"name": "x", "directory": "first"}, (400, "unknown_option", "directory")),
    ):
        *found, message = refusal(port, "POST", "/v1/adapters", body)
        assert tuple(found) == expected, (body, message)
        assert str(allowed.parent) not in message
    assert refusal(port, "DELETE", "/v1/adapters/x")[:2] == (404, "model_not_found")
    assert refusal(port, "DELETE", "/v1/adapters/mini")[:2] == (400, "not_an_adapter")
    assert refusal(port, "POST", "/v1/adapters", {"name": "x"}, key=None)[:2] == (401, "invalid_api_key")
    assert refusal(port, "DELETE", "/v1/adapters/first", key="wrong")[:2] == (401, "invalid_api_key")
    assert [model["id"] for model in json.loads(ask(port, "GET", "/v1/models")[1])["data"]] == list(MODELS)
