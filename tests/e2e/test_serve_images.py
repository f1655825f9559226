"""A real server with a random model that sees: pictures over HTTP, and what it refuses of them."""

from __future__ import annotations

import base64
import json
import zlib

import openai
import pytest

import redraft
from redraft.core.options import GenerationOptions
from seeing_engine import picture, png, shows, write_seeing_engine
from servers import KEY, ask, serving_with, wait_until


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_seeing_engine(tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "prompts.jsonl"


@pytest.fixture(scope="module")
def port(directory, log):
    before = f"from pathlib import Path; settings['log_prompts'] = Path({str(log)!r})"
    with serving_with(before, served=str(directory), model="seeing") as (_, port):
        yield port


def url(pixels, kind="png"):
    return f"data:image/{kind};base64,{base64.b64encode(png(pixels)).decode()}"


def message(*urls, text="what is it?", **fields):
    pictures = [{"type": "image_url", "image_url": {"url": url, **fields}} for url in urls]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]


def chat(port, messages, **fields):
    body = {"model": "seeing", "seed": 3, "max_tokens": 12, "messages": messages, **fields}
    status, data = ask(port, "POST", "/v1/chat/completions", body)
    return status, json.loads(data)


def refused(port, messages, **fields):
    status, told = chat(port, messages, **fields)
    assert (status, told["error"]["param"]) == (400, "messages"), told
    return told["error"]["message"]


def test_the_text_is_the_engines(port, directory):
    engine = redraft.load(directory, dtype="float32", threads=1)
    options = GenerationOptions(seed=3, max_new_tokens=12)
    for pixels in (picture(), picture(seed=5)):
        expected = engine.generate([shows(pixels, "what is it?")], options)
        for _ in range(2):
            status, told = chat(port, message(url(pixels)))
            assert status == 200
            assert told["redraft"][0]["raw"] == expected.raw
            assert told["usage"]["prompt_tokens"] == expected.stats.prompt_tokens
            assert told["usage"]["prompt_tokens_details"]["image_tokens"] == 65
    # The second time it was known.
    assert told["usage"]["prompt_tokens_details"]["cached_tokens"] > 65


def test_budgets_of_a_picture_and_of_a_request(port):
    def tokens(*messages, **fields):
        return chat(port, *messages, **fields)[1]["usage"]["prompt_tokens_details"]["image_tokens"]

    one = url(picture())
    assert tokens(message(one, detail="low")) == 65
    assert tokens(message(one, detail="high")) > 1000
    assert tokens(message(one), diffusion={"image_tokens": 140}) in range(70, 141)
    assert tokens(message(one, one, url(picture(120, 50)))) == 65 + 65 + 60
    mixed = message(one)
    mixed[0]["content"][0]["image_tokens"] = 140
    assert tokens(mixed) in range(70, 141)


def test_streams_and_openais_client(port):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0) as client:
        messages = message(url(picture()))
        whole = client.chat.completions.create(model="seeing", messages=messages, seed=3, max_tokens=12)
        stream = client.chat.completions.create(model="seeing", messages=messages, seed=3, max_tokens=12, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(pieces) == whole.choices[0].message.content


def test_what_is_said_of_the_model(port):
    status, told = ask(port, "GET", "/v1/models")
    assert status == 200
    assert json.loads(told)["data"][0]["redraft"]["sees"] is True
    status, told = ask(port, "POST", "/v1/tokenize", {"model": "seeing", "messages": message(url(picture()))})
    assert json.loads(told)["count"] > 65


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("https://example.com/a.png", "message 0, part 0: only data: URLs are read, got https:; nothing is"),
        ("file:///etc/passwd", "got file:"),
        ("/etc/passwd", "got none"),
        ("data:image/png;base64,AAA", "the base64 is damaged"),
        ("data:image/bmp;base64,Qk0=", "expected data:image/png, jpeg, webp or gif"),
        ("data:image/png;base64,Qk0AAAAA", "a BMP file: only PNG, JPEG, WebP or GIF is read here"),
        ("data:image/png;base64,iVBORw0KGgo=", "damaged or cut off"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(port, given, reason):
    assert reason in refused(port, message(given))


def test_paths_are_no_way_in(port, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(picture()))
    path = str(tmp_path / "secret.png")
    for part in ({"type": "image", "image": path}, {"type": "image", "image_url": {"url": path}}):
        said = refused(port, [{"role": "user", "content": [part]}])
        assert "'image' is Python's alone" in said
    # Neither by the other routes that take messages.
    body = {"model": "seeing", "messages": [{"role": "user", "content": [{"type": "image", "image": path}]}]}
    for route, more in (("/v1/tokenize", {}), ("/v1/infill", {"text": "a [[...]]"})):
        status, told = ask(port, "POST", route, body | more)
        assert (status, "Python's alone" in json.loads(told)["error"]["message"]) == (400, True)


def test_limits(port):
    one = url(picture(4, 4))
    assert refused(port, message(*[one] * 17)) == "the messages hold 17 pictures, at most 16 are taken"
    assert "image_tokens" in chat(port, message(one), diffusion={"image_tokens": 300})[1]["error"]["message"]
    bomb = bytearray(png(picture(4, 4)))
    bomb[16:24] = (20_000).to_bytes(4) + (20_000).to_bytes(4)
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    given = f"data:image/png;base64,{base64.b64encode(bytes(bomb)).decode()}"
    assert "400,000,000 pixels, at most 50,000,000" in refused(port, message(given))
    # More than a model takes that only reads, less than what one takes that sees.
    status, told = ask(port, "POST", "/v1/chat/completions", b" " * (5 * 2**20))
    assert (status, json.loads(told)["error"]["code"]) == (400, "invalid_json")
    status, told = ask(port, "POST", "/v1/chat/completions", b" " * (33 * 2**20))
    assert (status, json.loads(told)["error"]["code"]) == (413, "body_too_large")
    assert chat(port, message(one))[0] == 200


def test_the_log_of_prompts_holds_no_picture(port, log):
    one = url(picture(seed=9))
    chat(port, message(one, text="written down"))
    wait_until(lambda: "written down" in log.read_text())
    [line] = [line for line in log.read_text().splitlines() if '"written down"' in line]
    assert one not in line
    written = json.loads(line)["request"]["messages"][0]["content"][0]["image_url"]["url"]
    assert written.startswith(f"data:image/png;base64,... ({len(one)} characters, sha256 ")


def test_who_does_not_see_says_so():
    with serving_with(served="mini", model="mini") as (_, port):
        status, told = ask(port, "POST", "/v1/chat/completions", {"model": "mini", "messages": message(url(picture()))})
        assert status == 400
        assert "message 0, part 0: this checkpoint holds no vision tower" in json.loads(told)["error"]["message"]
        assert json.loads(ask(port, "GET", "/v1/models")[1])["data"][0]["redraft"]["sees"] is False


def test_a_video_is_looked_at_and_one_at_most(port, directory):
    pytest.importorskip("av")
    from video_files import video

    def part(data, **fields):
        text = f"data:video/mp4;base64,{base64.b64encode(data).decode()}"
        return {"type": "video_url", "video_url": {"url": text}, **fields}

    def asked(*parts):
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "what is it?"}]}]

    clip = video(6)
    engine = redraft.load(directory, dtype="float32", threads=1)
    options = GenerationOptions(seed=3, max_new_tokens=12)
    expected = engine.generate(asked({"type": "video", "video": clip, "frames": 3}), options)
    status, told = chat(port, asked(part(clip, frames=3)))
    assert status == 200, told
    assert told["redraft"][0]["raw"] == expected.raw
    assert told["usage"]["prompt_tokens_details"]["image_tokens"] == expected.stats.image_tokens
    assert "hold 2 videos, at most 1" in refused(port, asked(part(clip), part(clip)))
    assert "Python's alone" in chat(port, asked({"type": "video", "video": "/etc/passwd"}))[1]["error"]["message"]
    assert "no video of the kinds" in refused(port, asked(part(b"#EXTM3U")))
    assert "the file holds no video" in refused(port, asked(part(clip[: len(clip) // 2])))


def test_questions_about_pictures(port, directory, tmp_path):
    question = {"type": "choice", "instructions": "Which?", "choices": [{"value": "dark"}, {"value": "light"}]}
    mapped = {"q": {"type": "choice", "instructions": "Which?", "criteria": {"dark": None, "light": None}}}
    own = {"gate_nats": None}
    engine = redraft.load(directory, dtype="float32", threads=1)
    [expected] = engine.decide([shows(picture(), "a scan")], [question], gate_nats=None).answers

    def asked(body, route="/v1/decisions"):
        status, told = ask(port, "POST", route, {"model": "seeing", "decide": own, **body})
        return status, json.loads(told)

    shown, text = url(picture()), {"type": "input_text", "text": "a scan"}
    for part in (
        {"type": "input_image", "image_url": shown},
        {"type": "input_image", "image_url": shown, "detail": "auto"},
        {"type": "image_url", "image_url": {"url": shown}},
    ):
        status, told = asked({"input": [{"role": "user", "content": [part, text]}], "questions": [question]})
        assert status == 200, told
        found = told["redraft"]["answers"][0]["probabilities"]
        assert [one["probability"] for one in found] == list(expected.probabilities)
    status, told = asked({"state": "a scan", "images": [shown], "questions": mapped}, "/v1/systemone")
    assert status == 200, told
    assert told["answers"]["q"]["probabilities"]["dark"] == expected.probabilities[0]
    (tmp_path / "secret.png").write_bytes(png(picture()))
    path = [{"role": "user", "content": [{"type": "image", "image": str(tmp_path / "secret.png")}]}]
    for state in (path, {"messages": path}):
        status, told = asked({"state": state, "questions": mapped}, "/v1/systemone")
        assert (status, "Python's alone" in json.dumps(told)) == (400, True)
    bad = [{"role": "user", "content": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}]
    status, told = asked({"input": bad, "questions": [question]})
    assert (status, "only data: URLs" in told["error"]["message"]) == (400, True)
    many = [{"role": "user", "content": [{"type": "input_image", "image_url": url(picture(4, 4))}] * 17}]
    status, told = asked({"input": many, "questions": [question]})
    assert (status, told["error"]["message"]) == (400, "the messages hold 17 pictures, at most 16 are taken")
