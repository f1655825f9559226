"""Decisions over real HTTP: OpenAI's client and System One's body get what the engine gives in this process."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI

import redraft
from servers import KEY, ask, serving

TEXT = "play something by Nina Simone on Spotify"
QUESTIONS = [
    {"type": "predicate", "name": "music", "instructions": "Is it about music?"},
    {
        "type": "choice",
        "instructions": [
            {"type": "input_text", "text": "Which service?"},
            {"type": "input_json", "data": {"known": ["Spotify"]}},
        ],
        "choices": [{"value": "true"}, {"value": True, "description": "some service"}, {"value": "none"}],
    },
    {
        "type": "score",
        "name": "loud",
        "instructions": "How loud?",
        "levels": [{"label": "low"}, {"label": "middle", "description": "as a voice"}, {"label": "high"}],
    },
]
TWICE = {"type": "choice", "name": "twice", "instructions": "Which?", "choices": [{"value": "a"}, {"value": "a"}]}
MAPPED = {
    "music": {"type": "noul", "instructions": "Is it about music?"},
    "service": {"type": "choice", "instructions": "Which?", "criteria": {"Spotify": None, "radio": {"of": ["old"]}}},
    "loud": {"type": "score", "instructions": {"rate": "noise"}, "criteria": ["low", "middle", {"as": "a siren"}]},
}
CALLS = [
    {"role": "developer", "content": [{"type": "input_text", "text": "Be kind."}]},
    {"role": "user", "content": [{"type": "input_text", "text": "play "}, {"type": "input_text", "text": "jazz"}]},
    {"role": "assistant", "content": [{"type": "output_text", "text": "At once."}], "phase": "commentary"},
    {"type": "function_call", "call_id": "c1", "name": "PlayMusic", "arguments": '{"genre": "jazz"}'},
    {"type": "custom_tool_call", "call_id": "c2", "name": "shell", "input": "volume 3"},
    {"type": "function_call_output", "call_id": "c1", "output": "playing"},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "done"}]},
    {"role": "user", "content": "thanks"},
]


@pytest.fixture(scope="module")
def port():
    with serving("--threads", "1") as (_, port):
        yield port


@pytest.fixture(scope="module")
def client(port):
    with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def engine():
    return redraft.load("mini", dtype="float32", threads=1)


def system_one(port, path="/v1/systemone", **more):
    """(status, answer) of a body as Jev's clients send it."""
    body = {"state": {"message": TEXT}, "model": "jev-latest", "questions": MAPPED, **more}
    status, data = ask(port, "POST", path, body)
    return status, json.loads(data)


def shares(answer) -> list[float]:
    return list(answer.probabilities)


def test_openais_client_gets_what_the_engine_says(client, engine):
    decision = client.decisions.create(
        model="mini",
        input=TEXT,
        questions=[*QUESTIONS, TWICE],
        prompt_cache_key="a",
        prompt_cache_options={"mode": "implicit", "ttl": "30m"},
        safety_identifier="b",
    )
    predicate, choice, score, refusal = decision.answers
    own = engine.decide(TEXT, [*QUESTIONS, TWICE])
    # Bit for bit: a double survives JSON, and company, processes and HTTP change none.
    assert predicate.probability == own[0].probabilities[0]
    assert [each.probability for each in choice.probabilities] == shares(own[1])
    assert [each.probability for each in score.probabilities] == shares(own[2])
    assert [type(each.value) for each in choice.probabilities] == [str, bool, str]
    assert sum(each.probability for each in choice.probabilities) == pytest.approx(1, abs=1e-12)
    assert [(each.value, each.label) for each in score.probabilities] == [(0, "low"), (1, "middle"), (2, "high")]
    assert (choice.choice, choice.confidence) == (own[1].value, max(shares(own[1])))
    assert score.score == pytest.approx(sum(each.value * each.probability for each in score.probabilities))
    assert [answer.name for answer in decision.answers] == ["music", None, "loud", "twice"]
    assert (refusal.type, refusal.to_dict()) == ("refusal", {"type": "refusal", "name": "twice"})
    assert decision.model == "mini"
    usage = decision.usage
    assert (usage.output_tokens, usage.total_tokens) == (0, usage.input_tokens)
    assert 0 < usage.input_tokens_details.cached_tokens < usage.input_tokens
    extras = decision.model_extra["redraft"]
    assert extras["answers"][3]["code"] == "invalid_question"
    assert extras["answers"][0] == json.loads(json.dumps(own[0].to_dict()))
    assert extras["stats"]["reads"] == own.stats.reads


def test_conversations_with_calls_and_single_messages(client, engine):
    asked = QUESTIONS[:1]
    said = client.decisions.create(model="mini", input=CALLS, questions=asked).answers[0].probability
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "PlayMusic", "arguments": {"genre": "jazz"}}},
        {"id": "c2", "type": "function", "function": {"name": "shell", "arguments": {"input": "volume 3"}}},
    ]
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "play jazz"},
        {"role": "assistant", "content": "At once.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "name": "PlayMusic", "content": "playing"},
        {"role": "tool", "tool_call_id": "c2", "name": "shell", "content": "done"},
        {"role": "user", "content": "thanks"},
    ]
    assert said == engine.decide(messages, asked)[0].probabilities[0]
    alone = client.decisions.create(model="mini", input=[{"role": "user", "content": TEXT}], questions=asked)
    assert alone.answers[0].probability == engine.decide(TEXT, asked)[0].probabilities[0]


@pytest.mark.parametrize("path", ["/v1/systemone", "/v1/decisions"])
def test_system_ones_body_gets_its_own_format(port, engine, path):
    status, told = system_one(port, path)
    assert status == 200, told
    own = engine.decide({"message": TEXT}, {**MAPPED, "loud": {**MAPPED["loud"], "criteria": ["low", "middle", "x"]}})
    assert set(told) == {"model", "answers", "usage", "redraft"}
    music, service, loud = told["answers"].values()
    assert music == {"type": "noul", "noul": own["music"].probabilities[0]}
    assert service == {
        "type": "choice", "choice": own["service"].value, "confidence": own["service"].confidence,
        "probabilities": dict(zip(("Spotify", "radio"), shares(own["service"]), strict=True)),
    }  # fmt: skip
    assert loud["legend"] == {"0": "low", "1": "middle", "2": {"as": "a siren"}}
    assert sum(loud["probabilities"].values()) == pytest.approx(1, abs=1e-12)
    assert loud["score"] == pytest.approx(sum(int(level) * p for level, p in loud["probabilities"].items()))
    assert loud["confidence"] == max(loud["probabilities"].values())
    assert set(told["usage"]) == {"input_tokens", "output_tokens"}
    assert list(told["redraft"]["answers"]) == list(MAPPED)


def test_openais_body_is_known_on_the_other_route(port):
    body = {"model": "mini", "input": TEXT, "questions": QUESTIONS}
    here, there = (json.loads(ask(port, "POST", path, body)[1]) for path in ("/v1/decisions", "/v1/systemone"))
    assert [answer["type"] for answer in there["answers"]] == ["predicate", "choice", "score"]
    assert there["answers"] == here["answers"]


def test_what_is_abstained_from(client, port):
    sure = {"decide": {"least_confidence": 1, "reader": "causal", "gate_nats": None}}
    decision = client.decisions.create(model="mini", input=TEXT, questions=QUESTIONS, extra_body=sure)
    assert [answer.type for answer in decision.answers] == ["refusal"] * 3
    told = decision.model_extra["redraft"]["answers"]
    assert {answer["code"] for answer in told} == {"abstained"}
    assert all("confidence" in answer["would_be"]["doubts"] for answer in told)
    status, answered = system_one(port, **sure)
    assert (status, answered["answers"]["music"]["type"]) == (200, "noul")
    assert answered["redraft"]["answers"]["music"]["code"] == "abstained"


def test_options_reach_the_engine(client, engine):
    own = {"joint": True, "draws": 3, "gate_nats": None, "reader": "canvas", "seed": 7}
    decision = client.decisions.create(model="mini", input=TEXT, questions=QUESTIONS, extra_body={"decide": own})
    here = engine.decide(TEXT, QUESTIONS, **own)
    assert decision.answers[0].probability == here[0].probabilities[0]
    told = decision.model_extra["redraft"]["answers"][0]
    assert (told["draws"], told["stages"]) == (3, list(here[0].stages))


def test_company_changes_no_answer(port, client):
    alone = client.decisions.create(model="mini", input=TEXT, questions=QUESTIONS).answers

    async def several():
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, timeout=120) as client:
            chat = [{"role": "user", "content": TEXT}]
            others = [client.chat.completions.create(model="mini", messages=chat, seed=i) for i in range(3)]
            asked = [client.decisions.create(model="mini", input=TEXT, questions=QUESTIONS) for _ in range(4)]
            found = await asyncio.gather(*others, *asked)
            return found[3:]

    for decision in asyncio.run(several()):
        assert decision.answers == alone


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"model": "gpt-6-luna"}, 404, "model"),
        ({"input": ""}, 400, "input"),
        ({"input": TEXT * 2000}, 400, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}]}, 400,
         "input"),
        ({"questions": []}, 400, "questions"),
        ({"extra_body": {"frob": 1}}, 400, "frob"),
        ({"extra_body": {"decide": {"width": 2**20}}}, 400, "decide.width"),
        ({"extra_body": {"decide": {"draws": 65}}}, 400, "decide.draws"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_work_is_named(client, changes, status, param):
    with pytest.raises(APIStatusError) as caught:
        client.decisions.create(**{"model": "mini", "input": TEXT, "questions": QUESTIONS, **changes})
    assert (caught.value.status_code, caught.value.param) == (status, param), caught.value.message


def test_questions_alone_are_at_fault(client, port):
    image = [{"type": "input_image", "image_url": "data:"}]
    bad = [
        {"type": "predicate", "name": "image", "instructions": image},
        {"type": "predicate", "name": "empty", "instructions": " "},
        {"type": "score", "name": "one", "instructions": "How?", "levels": [{"label": "a"}]},
        {"type": "what", "name": "type", "instructions": "x"},
        {"type": "predicate", "name": "long", "instructions": "x " * 9000},
    ]
    decision = client.decisions.create(model="mini", input=TEXT, questions=[*bad, QUESTIONS[0]])
    assert [answer.type for answer in decision.answers] == ["refusal"] * len(bad) + ["predicate"]
    assert [answer.name for answer in decision.answers[:-1]] == [question["name"] for question in bad]
    reasons = [answer["reason"] for answer in decision.model_extra["redraft"]["answers"][:-1]]
    assert "an image: it belongs to the state" in reasons[0]
    assert all(reasons)
    for name, question in (("box", {"type": "box"}), ("a.b", {"type": "noul", "instructions": "x " * 9000})):
        status, told = system_one(port, questions={**MAPPED, name: question})
        assert (status, told["error"]["param"]) == (400, f"questions.{name}")


def test_as_many_questions_and_options_as_there_may_be(port):
    """Too long for this model's context, each is refused by name, without much memory."""

    def body(count, options, words):
        choices = [{"value": f"option {number} " + "word " * words} for number in range(options)]
        asked = [{"type": "choice", "instructions": f"Which {n}?", "choices": choices} for n in range(count)]
        return {"model": "mini", "input": TEXT, "questions": asked, "decide": {"gate_nats": None, "joint": True}}

    status, data = ask(port, "POST", "/v1/decisions", body(400, 255, 3), timeout=300)
    told = json.loads(data)
    assert status == 200
    assert [answer["type"] for answer in told["answers"]] == ["refusal"] * 400
    assert all("context" in answer["reason"] for answer in told["redraft"]["answers"])
    status, data = ask(port, "POST", "/v1/decisions", body(64, 3, 0), timeout=300)
    told = json.loads(data)
    assert [answer["type"] for answer in told["answers"]] == ["choice"] * 64
    assert told["redraft"]["stats"]["canvas_reads"] < 64
    assert ask(port, "POST", "/v1/decisions", body(401, 2, 0))[0] == 400
