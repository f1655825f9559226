"""What a client gets of the protocol over real HTTP: no call it has not declared, no marker, seeds that stay exact."""

from __future__ import annotations

import http.client
import json
import stat
import subprocess

import pytest

from servers import KEY, REDRAFT, ask, serving

SENTENCE = "I can only help with music, playlists, weather, restaurants, books, films and screenings."
JAZZ = [{"role": "user", "content": "play some jazz"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "PlayMusic",
            "parameters": {"type": "object", "properties": {"genre": {"type": "string"}}, "required": ["genre"]},
        },
    }
]
SYNTAX = ("<|", "|>", "call:")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "prompts.jsonl"


@pytest.fixture(scope="module")
def plain(log):
    """The port of a server as it starts without a word of tools."""
    with serving("--threads", "1", "--log-prompts", str(log), known_tools=False) as (_, port):
        yield port


@pytest.fixture(scope="module")
def knowing():
    with serving("--threads", "1") as (_, port):
        yield port


def chat(port: int, **fields):
    status, data = ask(port, "POST", "/v1/chat/completions", {"model": "mini", "messages": JAZZ, "seed": 0, **fields})
    return status, json.loads(data)


def streamed(port: int, path: str = "/v1/chat/completions", **fields):
    """(text, calls, finish reason) of a stream."""
    body = {"model": "mini", "seed": 0, "stream": True, **fields}
    _, data = ask(port, "POST", path, {"messages": JAZZ, **body} if "chat" in path else body)
    chunks = [json.loads(part[6:]) for part in data.decode().split("\n\n") if part.startswith("data: {")]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    calls = [call for choice in choices for call in choice.get("delta", {}).get("tool_calls") or ()]
    return text, calls, choices[-1]["finish_reason"]


@pytest.mark.parametrize(
    "fields", [{}, {"tools": []}, {"tool_choice": "none"}, {"tools": TOOLS, "tool_choice": "none"}], ids=str
)
def test_no_call_that_the_client_has_not_asked_for(plain, fields):
    status, answer = chat(plain, **fields)
    assert status == 200
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (SENTENCE, "stop")
    assert "tool_calls" not in choice["message"]
    assert streamed(plain, **fields) == (SENTENCE, [], "stop")


def test_declared_tools_are_called(plain):
    _, answer = chat(plain, tools=TOOLS)
    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"genre": "jazz"}


def test_a_request_may_ask_for_what_the_model_knows(plain, knowing):
    for port, fields in ((plain, {"diffusion": {"known_tools": True}}), (knowing, {})):
        _, answer = chat(port, **fields)
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
    _, answer = chat(knowing, diffusion={"known_tools": False})
    assert answer["choices"][0]["message"]["content"] == SENTENCE
    assert chat(plain, tool_choice="required")[1]["error"]["param"] == "tool_choice"


def test_known_tools_are_listed_where_they_are_used(plain, knowing):
    def listed(port):
        model = json.loads(ask(port, "GET", "/v1/models")[1])["data"][0]["redraft"]
        return [tool["function"]["name"] for tool in model.get("known_tools", ())]

    assert listed(plain) == []
    assert "PlayMusic" in listed(knowing)
    assert len(json.loads(ask(plain, "GET", "/v1/tools")[1])["data"]) == 7


@pytest.mark.parametrize("budget", [1, 3, 5])
def test_a_call_that_is_cut_off_is_said_to_be(knowing, budget):
    _, answer = chat(knowing, max_tokens=budget)
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert "tool_calls" not in choice["message"]
    assert streamed(knowing, max_tokens=budget) == ("", [], "length")


@pytest.mark.parametrize("stop", ["PlayMusic", ["a", "b"], "<|tool_call>"])
def test_stop_strings_leave_calls_alone(knowing, stop):
    _, answer = chat(knowing, stop=stop)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["content"] is None
    assert streamed(knowing, stop=stop)[0] == ""


def test_completions_have_no_markers(knowing):
    prompt = "<bos><|turn>user\nplay some jazz<turn|>\n<|turn>model\n"
    body = {"model": "mini", "prompt": prompt, "seed": 0, "logprobs": 0}
    answer = json.loads(ask(knowing, "POST", "/v1/completions", body)[1])
    choice = answer["choices"][0]
    assert not any(marker in choice["text"] for marker in SYNTAX[:2])
    assert "jazz" in choice["text"]
    assert "".join(choice["logprobs"]["tokens"]).replace(" ", "") == choice["text"].replace(" ", "")
    assert streamed(knowing, "/v1/completions", prompt=prompt)[0] == choice["text"]


def test_seeds_come_back_as_they_were_sent(knowing):
    for seed in (0, 2**53 - 1, str(2**53 - 1), str(2**64 - 1)):
        status, answer = chat(knowing, seed=seed, n=1)
        assert status == 200, answer
        told = answer["redraft"][0]["seed"]
        assert int(told) == int(seed)
        assert isinstance(told, int) == (int(seed) < 2**53)
        again = chat(knowing, seed=told)[1]["choices"][0]["message"]
        assert again["content"] == answer["choices"][0]["message"]["content"]
    for seed in (2**53, 2**64, "18446744073709551616", "-1", "abc", True, 1.5):
        status, answer = chat(knowing, seed=seed)
        assert (status, answer["error"]["param"].split(".")[0]) == (400, "seed"), seed
    drawn = [chat(knowing, seed=None)[1]["redraft"][0]["seed"] for _ in range(4)]
    assert all(isinstance(seed, int) and seed < 2**53 for seed in drawn)


def test_what_is_asked_and_answered_is_logged_for_its_owner_alone(plain, log):
    ask(plain, "POST", "/v1/chat/completions", {"model": "mini", "messages": JAZZ, "seed": 5})
    stream = streamed(plain, seed=6)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    for seed, text in ((5, SENTENCE), (6, stream[0])):
        [asked] = [entry for entry in entries if entry.get("request", {}).get("seed") == seed]
        [told] = [entry for entry in entries if entry["id"] == asked["id"] and "reply" in entry]
        assert asked["request"]["messages"] == JAZZ
        assert (told["reply"]["text"], told["reply"]["seed"]) == (text, seed)


def test_a_log_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "open.jsonl"
    path.touch(mode=0o644)
    command = [*REDRAFT, "serve", "--port", "0", "--log-prompts", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "others may read" in done.stderr


UNMET = {"name": "f", "parameters": {"type": "object", "properties": {}, "required": "a"}}
CHAT = {
    "messages": [
        {"messages": [{"role": "tool", "tool_call_id": "1", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
        {"messages": [{"role": "robot", "content": "x"}]},
    ],
    "tools": [{"tools": [{"type": "function", "function": UNMET}]}, {"tools": [{"function": {}}]}],
    "response_format": [
        {"response_format": {"type": "json_schema", "schema": {"type": "nothing"}}},
        {"response_format": {"type": "json_object", "schemas": {}}},
    ],
    "diffusion.steps": [{"diffusion": {"mode": "autoregressive", "steps": 3}}],
    "diffusion.canvas_length": [{"diffusion": {"canvas_length": 10**6}}],
    "max_tokens": [{"tools": TOOLS, "tool_choice": "required", "max_tokens": 1}],
}
KNOWN = {"known_tools": True}
WRONG = [("chat/completions", {"messages": JAZZ, **body}, param) for param, bodies in CHAT.items() for body in bodies]
WRONG += [
    ("chat/completions", {"messages": JAZZ, "tool_choice": 5}, "tool_choice"),
    ("chat/completions", {"messages": JAZZ, "stop": [1]}, "stop"),
    ("chat/completions", {"messages": JAZZ, "diffusion": {"drafts": True}}, "diffusion.drafts"),
    ("chat/completions", {"messages": JAZZ, "stream_options": {"include_usage": True}}, "stream_options"),
    ("chat/completions", {"messages": JAZZ, "user": "\ud800"}, "user"),
    ("chat/completions", {"messages": JAZZ, "diffusion": {"speed": 1}}, "diffusion.speed"),
    (
        "chat/completions",
        {"messages": JAZZ, "tools": TOOLS, "diffusion": {"known_tools": True}},
        "diffusion.known_tools",
    ),
    ("completions", {"prompt": None}, "prompt"),
    ("completions", {"prompt": "x", "diffusion": KNOWN}, "diffusion.known_tools"),
    ("infill", {"text": "abc", "span": [7, 4]}, "span"),
    ("completions", {"prompt": "word " * 3000}, "prompt"),
    ("completions", {"prompt": [10**9]}, "prompt"),
    ("infill", {"text": "no hole"}, "text"),
]


@pytest.mark.parametrize(("path", "body", "param"), WRONG, ids=lambda value: str(value)[:40])
def test_errors_name_a_field_of_the_request(knowing, path, body, param):
    status, data = ask(knowing, "POST", f"/v1/{path}", {"model": "mini", **body})
    assert (status, json.loads(data)["error"]["param"]) == (400, param), data


@pytest.mark.parametrize(
    "arguments",
    ['{"a": "\\ud800"}', "[" * 100_000, '{"a": ' + "9" * 6000 + "}", '{"a": NaN}', "{", '{"a":' * 99 + "1" + "}" * 99],
    ids=lambda value: value[:12],
)
def test_arguments_of_a_call_never_fail_the_server(knowing, arguments):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [
        *JAZZ,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ]
    status, answer = chat(knowing, messages=messages)
    assert (status, answer["error"]["param"]) == (400, "messages")


def test_a_schema_in_json_object_is_kept(knowing):
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    _, answer = chat(knowing, response_format={"type": "json_object", "schema": schema})
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["answer"], int)


def test_any_text_is_what_there_is_without_a_format(knowing):
    with_text = chat(knowing, response_format={"type": "text"})[1]["choices"][0]["message"]
    assert [call["function"] for call in with_text["tool_calls"]] == [
        call["function"] for call in chat(knowing)[1]["choices"][0]["message"]["tool_calls"]
    ]


def test_a_key_is_needed_for_the_tools_as_for_the_rest(plain):
    assert ask(plain, "GET", "/v1/tools", key=None)[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", plain, timeout=10)
    connection.request("GET", "/v1/tools", headers={"authorization": f"Bearer {KEY}"})
    assert connection.getresponse().status == 200
    connection.close()
