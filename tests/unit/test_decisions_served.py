"""Decisions over HTTP with an engine that answers as it is told: formats, rounds, places, and what goes wrong."""

from __future__ import annotations

import json

import pytest
from starlette.testclient import TestClient

from redraft.core.errors import ContextLengthError, OptionError, QuestionError
from redraft.decide.given import questions_of
from redraft.server.app import create_app
from redraft.server.settings import Settings
from served_decisions import FakeEngine

PREDICATE = {"type": "predicate", "instructions": "Is it wet?"}
CHOICE = {
    "type": "choice",
    "name": "which",
    "instructions": "Which?",
    "choices": [{"value": "true"}, {"value": True, "description": "so"}, {"value": "c"}],
}
SCORE = {"type": "score", "instructions": "How much?", "levels": [{"label": "low"}, {"label": "high"}]}
MAPPED = {
    "wet": {"type": "noul", "instructions": "Is it wet?", "criteria": {"true": "water", "false": None}},
    "which": {"type": "choice", "instructions": {"task": "Which?"}, "criteria": {"a": None, "b": {"means": ["x"]}}},
    "much": {"type": "score", "instructions": "How much?", "criteria": ["low", {"of": "much"}]},
}


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def client(engine):
    with TestClient(create_app(engine, Settings(request_timeout_s=1.0)), raise_server_exceptions=False) as client:
        client.headers["host"] = "127.0.0.1"
        yield client


def openai(*questions, **more):
    return {"model": "mini", "input": "rain", "questions": list(questions), **more}


def system_one(questions=MAPPED, **more):
    return {"model": "jev-latest", "state": "rain", "questions": questions, **more}


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/systemone"])
def test_each_body_gets_its_own_format_on_either_route(client, engine, path):
    told = client.post(path, json=openai(PREDICATE, CHOICE, SCORE)).json()
    assert told["model"] == "mini"
    third = 1 / 3
    assert told["answers"] == [
        {"type": "predicate", "name": None, "probability": 0.5},
        {
            "type": "choice", "name": "which", "choice": "true", "confidence": third,
            "probabilities": [
                {"value": "true", "probability": third}, {"value": True, "probability": third},
                {"value": "c", "probability": third},
            ],
        },
        {
            "type": "score", "name": None, "score": 0.5, "confidence": 0.5,
            "probabilities": [
                {"value": 0, "label": "low", "probability": 0.5}, {"value": 1, "label": "high", "probability": 0.5}
            ],
        },
    ]  # fmt: skip
    assert told["usage"] == {
        "input_tokens": 20, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0}, "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 20,
    }  # fmt: skip
    assert told["redraft"]["answers"][1]["label_mass"] == 0.5
    assert told["redraft"]["stats"]["canvas_reads"] == 1
    told = client.post(path, json=system_one()).json()
    assert told["answers"] == {
        "wet": {"type": "noul", "noul": 0.5},
        "which": {"type": "choice", "choice": "a", "probabilities": {"a": 0.5, "b": 0.5}, "confidence": 0.5},
        "much": {
            "type": "score", "score": 0.5, "legend": {"0": "low", "1": {"of": "much"}},
            "probabilities": {"0": 0.5, "1": 0.5}, "confidence": 0.5,
        },
    }  # fmt: skip
    assert told["usage"] == {"input_tokens": 20, "output_tokens": 0}
    assert list(told["redraft"]["answers"]) == list(MAPPED)
    assert engine.lists == [2, 2, 2, 2], "every round was read"


def test_a_question_is_refused_by_itself(client, engine):
    engine.abstains = (2,)
    twice = {**CHOICE, "choices": [{"value": "a"}, {"value": "a"}]}
    told = client.post("/v1/decisions", json=openai(PREDICATE, {**twice, "name": "two"}, SCORE, 3)).json()
    kinds = [(answer["type"], answer["name"]) for answer in told["answers"]]
    assert kinds == [("predicate", None), ("refusal", "two"), ("refusal", None), ("refusal", None)]
    assert all(set(answer) == {"type", "name"} for answer in told["answers"][1:])
    codes = [answer.get("code") for answer in told["redraft"]["answers"]]
    assert codes == [None, "invalid_question", "abstained", "invalid_question"]
    assert told["redraft"]["answers"][2]["would_be"]["score"] == 0.5


def test_the_format_without_refusals(client, engine):
    engine.abstains = (0,)
    told = client.post("/v1/systemone", json=system_one()).json()
    assert told["answers"]["wet"] == {"type": "noul", "noul": 0.5}
    assert told["redraft"]["answers"]["wet"]["code"] == "abstained"
    unsaid = {name: {"type": MAPPED[name]["type"], "criteria": MAPPED[name]["criteria"]} for name in MAPPED}
    assert client.post("/v1/systemone", json=system_one(unsaid)).status_code == 200
    assert [question.instructions for question in engine.seen[-1][1]] == [
        "Is this so?", "Which of these is it?", "Which of these levels is it?"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("box", {"type": "box", "instructions": "The dog"}),
        ("type", "noul"),
        ("", MAPPED["wet"]),
        ("x", {**MAPPED["wet"], "name": "y"}),
        ("x", {**MAPPED["much"], "criteria": ["one"]}),
        ("x", {**MAPPED["wet"], "type": ["noul"]}),
        ("x", {**MAPPED["wet"], "instructions": ""}),
        ("x", None),
    ],
)
def test_a_bad_question_of_the_format_without_refusals_is_named(client, name, question):
    answer = client.post("/v1/systemone", json=system_one({**MAPPED, name: question}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"questions.{name}"), answer.text


@pytest.mark.parametrize("levels", [["a", "b"], [{"label": "a"}, {"label": "b"}], {"a": "x", "b": None}])
def test_levels_by_the_other_name_have_a_legend(client, levels):
    question = {"type": "score", "levels": levels, "criteria": None}
    answer = client.post("/v1/systemone", json=system_one({"much": question}))
    assert answer.status_code == 200, answer.text
    assert answer.json()["answers"]["much"]["legend"] == {"0": "a", "1": "b"}


def test_options_that_are_one_key_are_refused_where_they_would_be(client):
    question = {"type": "choice", "instructions": "Which?", "choices": [True, "true", "c"]}
    answer = client.post("/v1/systemone", json=system_one({"which": question}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "questions.which"), answer.text
    assert "choices hold 'true' twice" in answer.json()["error"]["message"]
    assert client.post("/v1/decisions", json=openai(question)).status_code == 200


def test_what_is_not_asked_in_words_needs_none(client, engine):
    question = {"type": "choice", "form": "reply", "choices": ["a", {"value": "b", "reply": "c"}]}
    assert client.post("/v1/systemone", json=system_one({"which": question})).status_code == 200
    assert engine.seen[-1][1][0].instructions == ""
    answer = client.post("/v1/systemone", json=system_one({"which": {**question, "instructions": "Which?"}}))
    assert "instructions are not asked with form 'reply'" in answer.json()["error"]["message"]


def test_options_states_and_models(client, engine):
    own = {"draws": 3, "gate_nats": None, "least_mass": 0.5, "reader": "causal", "seed": 4, "state": "behind"}
    assert client.post("/v1/decisions", json=openai(PREDICATE, joint=True, decide=own)).status_code == 200
    state, _, options = engine.seen[-1]
    assert (state.text, options.joint, options.gate_nats, options.draws, options.seed) == ("rain", True, None, 3, 4)
    assert client.post("/v1/systemone", json=system_one(instructions={"be": "kind"})).status_code == 200
    said = [(message["role"], message["content"]) for message in engine.seen[-1][0].messages]
    assert said == [("system", '{"be": "kind"}'), ("user", "rain")]
    taken = {"prompt_cache_key": "a", "prompt_cache_options": {"ttl": "30m"}, "safety_identifier": "b", "user": "c"}
    assert client.post("/v1/decisions", json=openai(PREDICATE, cache_salt="d", **taken)).status_code == 200
    taken = {"priority": 0, "request_id": "x", "chat_template_kwargs": {"enable_thinking": False}, "images": []}
    assert client.post("/v1/systemone", json=system_one(**taken)).status_code == 200
    for body in (
        openai(PREDICATE) | {"model": "gpt-6-luna"},
        system_one(model="other"),
        openai(PREDICATE, model="jev-latest"),
    ):
        answer = client.post("/v1/decisions", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")
    body = system_one()
    del body["model"]
    assert client.post("/v1/systemone", json=body).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (openai(), "questions"),
        (openai(*[PREDICATE] * 401), "questions"),
        (openai(PREDICATE, input=[]), "input"),
        (openai(PREDICATE, input=" "), "input"),
        (
            openai(PREDICATE, input=[{"role": "user", "content": [{"type": "input_image"}]}]),
            "input.0.content.0.image_url",
        ),
        (openai(PREDICATE, stream=True), "stream"),
        (openai(PREDICATE, decide={"draws": 0}), "decide.draws"),
        *[
            (openai(PREDICATE, decide={name: value}), f"decide.{name}")
            for name in ("draws", "more_draws", "steps", "width", "seed")
            for value in ("4", True)
        ],
        (openai(PREDICATE, decide={"frob": 0}), "decide.frob"),
        (openai(PREDICATE, prompt_cache_options={"ttl": "1h"}), "prompt_cache_options.ttl"),
        (openai(PREDICATE, images=["x"]), "images"),
        (openai(PREDICATE, joint=True, decide={"joint": False}), "joint"),
        (system_one({}), "questions"),
        (system_one([PREDICATE]), "questions"),
        (system_one(state=3), "state"),
        (system_one(state={}), "state"),
        (system_one(state=[{"role": "tool", "content": "x"}]), "state"),
        (system_one(joint="yes"), "joint"),
        (system_one(assets={"a": {"type": "image"}}), "assets"),
        (system_one(priority=3), "priority"),
        (system_one(frob=1), "frob"),
        ({"model": "mini", "questions": [PREDICATE]}, "input"),
        ({"model": "mini", "questions": MAPPED}, "state"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_bodies_are_answered_with_the_field(client, engine, body, param):
    answer = client.post("/v1/decisions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (OptionError("width must be at most 48, got 64"), "decide.width"),
        (ContextLengthError(10, 5), "input"),
        (QuestionError("state", "is empty"), "input"),
        (QuestionError("questions", "are too many"), "questions"),
    ],
)
def test_what_the_engine_refuses_is_told_in_the_bodys_words(client, engine, error, param):
    engine.raises = error
    answer = client.post("/v1/decisions", json=openai(PREDICATE))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_instructions_that_are_too_long_are_named(client, engine):
    engine.raises = ContextLengthError(10, 5)
    for instructions, param in (("long " * 9, "instructions"), ({"x": "long" * 9}, "instructions"), ("I", "state")):
        answer = client.post("/v1/systemone", json=system_one(instructions=instructions))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_one_place_for_all_rounds_given_back_whatever_happens(client, engine):
    scheduler = client.app.state.scheduler
    held = []
    engine.rounds = 3
    reserve, release = scheduler.reserve, scheduler.release
    scheduler.reserve = lambda count: held.append(count) or reserve(count)
    scheduler.release = lambda count: held.append(-count) or release(count)
    assert client.post("/v1/decisions", json=openai(PREDICATE)).status_code == 200
    assert held == [1, -1]
    engine.fails = "it broke"
    answer = client.post("/v1/decisions", json=openai(PREDICATE))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "generation_failed")
    engine.fails = None
    engine.holds.set()
    answer = client.post("/v1/decisions", json=openai(PREDICATE))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    engine.holds.clear()
    engine.needs = 2000
    answer = client.post("/v1/decisions", json=openai(PREDICATE))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request_too_large")
    assert sum(held) == scheduler.reserved == 0
    page = client.get("/metrics").text
    for ended in ("stop", "error", "timeout"):
        assert f'redraft_requests_total{{finish_reason="{ended}",model="mini"}} 1.0' in page


def test_full_and_ending_servers(engine):
    with TestClient(create_app(engine, Settings(max_running=1, max_waiting=1))) as client:
        client.headers["host"] = "127.0.0.1"
        scheduler = client.app.state.scheduler
        scheduler.reserve(2)
        answer = client.post("/v1/decisions", json=openai(PREDICATE))
        assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
        scheduler.release(2)
        scheduler.draining = True
        assert client.post("/v1/systemone", json=system_one()).status_code == 503


def test_counted(client, engine):
    engine.abstains = (1,)
    client.post("/v1/decisions", json=openai(PREDICATE, CHOICE, {"type": "what"}))
    page = client.get("/metrics").text
    for line in (
        'redraft_questions_total{result="answered",type="predicate"} 1.0',
        'redraft_questions_total{result="abstained",type="choice"} 1.0',
        'redraft_questions_total{result="refused",type="none"} 1.0',
        "redraft_questions_reread_total 1.0",
        'redraft_reads_total{reader="canvas"} 1.0',
        'redraft_reads_total{reader="causal"} 1.0',
        'redraft_prompt_tokens_total{model="mini"} 20.0',
        "redraft_decisions_seconds_count 1.0",
    ):
        assert line in page, line


def test_written_down_only_where_the_operator_wants_it(engine, tmp_path):
    path = tmp_path / "log.jsonl"
    with TestClient(create_app(engine, Settings(log_prompts=path))) as client:
        client.headers["host"] = "127.0.0.1"
        client.post("/v1/decisions", json=openai(PREDICATE))
        engine.fails = "it broke"
        client.post("/v1/systemone", json=system_one())
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [set(entry) - {"time", "id"} for entry in entries] == [{"request"}, {"reply"}, {"request"}, {"reply"}]
    assert entries[0]["request"]["input"] == "rain"
    assert entries[1]["reply"]["answers"][0]["probabilities"][0]["probability"] == 0.5
    assert "it broke" in entries[3]["reply"]["error"]


def test_packed_bodies_are_refused_by_name(client):
    answer = client.post("/v1/systemone", content=b"(\xb5/\xfd", headers={"content-encoding": "zstd"})
    assert answer.status_code == 415
    assert "zstd" in answer.json()["error"]["message"]


def test_questions_stay_as_they_are_where_they_are_read_twice():
    questions = questions_of([PREDICATE, 3])
    assert questions_of(questions) == questions


def test_adapters_are_loaded_where_that_was_allowed(client):
    for answer in (client.post("/v1/adapters", json={"name": "x"}), client.delete("/v1/adapters/x")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "adapters_not_allowed")
        assert "--allow-adapters" in answer.json()["error"]["message"]
