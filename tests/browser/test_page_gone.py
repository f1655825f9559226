"""A server that stops, ends, or has no place: said in plain words, with nothing lost, and over when it is back."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading

import pytest

from chromium import ENDLESS, all_of, click, one, open_page, say, send, settings, texts_of, until
from servers import KEY, ask, serving, serving_with, wait_until

# What browsers call it.
THEIRS = ("Failed to fetch", "NetworkError", "TypeError", "network error", "ERR_")
LONG = {
    "model": "mini",
    "messages": [{"role": "user", "content": "play jazz"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": json.loads(ENDLESS)}},
    "max_tokens": 2000,
}


@pytest.fixture
def served():
    """A server that a test may end: (process, port)."""
    with serving("--threads", "1", known_tools=False) as (process, port):
        yield process, port


def trouble(page) -> str:
    return one(page, "#trouble").text


def error(page) -> str:
    return "".join(texts_of(page, ".turn .error"))


def keep_busy(port: int):
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask(port, "POST", "/v1/chat/completions", LONG)


def assert_plain(page):
    said = one(page, "body").text
    assert not [words for words in THEIRS if words in said]


def test_a_server_that_is_gone_and_comes_back(chrome, served):
    process, port = served
    open_page(chrome, port)
    process.end()
    send(chrome, "play some jazz")
    until(chrome, lambda: "Nothing answers" in error(chrome))
    assert "redraft serve" in error(chrome)
    assert "No connection to the server" in trouble(chrome)
    assert texts_of(chrome, ".user") == ["play some jazz"]
    assert_plain(chrome)
    one(chrome, "#text").send_keys("and then")
    with serving("--threads", "1", port=port, known_tools=False):
        until(chrome, lambda: trouble(chrome) == "The server answers again.")
        click(chrome, ".again")
        until(chrome, lambda: texts_of(chrome, ".calls") == ['PlayMusic(genre="jazz")'])
        assert not all_of(chrome, ".turn .error, .again")
        assert one(chrome, "#text").get_property("value") == "and then"


def test_a_server_that_dies_within_a_reply(chrome, served):
    process, port = served
    open_page(chrome, port)
    settings(chrome, schema=ENDLESS, max_tokens="2000")
    send(chrome, "play some jazz")
    until(chrome, lambda: texts_of(chrome, ".answer")[0])
    process.end()
    until(chrome, lambda: "in the middle of this reply" in error(chrome))
    assert_plain(chrome)
    half = texts_of(chrome, ".answer")[0]
    assert half
    assert one(chrome, ".drawing").is_displayed()
    assert all_of(chrome, ".scrubber"), "what had come can be looked at"
    # After a reload there is no server to ask; the half reply is in the browser.
    with serving("--threads", "1", port=port, known_tools=False):
        until(chrome, lambda: trouble(chrome) == "The server answers again.")
        chrome.refresh()
        until(chrome, lambda: all_of(chrome, ".example"))
        one(chrome, "#open-history").click()
        click(chrome, "#conversations .title")
        assert texts_of(chrome, ".answer") == [half]
        assert "in the middle" in error(chrome)
        settings(chrome, schema="", max_tokens="100")
        click(chrome, ".again")
        until(chrome, lambda: texts_of(chrome, ".calls") == ['PlayMusic(genre="jazz")'])


def test_a_server_that_was_gone_when_the_page_came(chrome, served):
    process, port = served
    open_page(chrome, port)
    # The page is there, the model is not yet: as where the server stops between the two.
    process.end()
    chrome.execute_script("""
        document.querySelector("#model").textContent = "";
        import("/static/connection.js").then((connection) => connection.connect());
    """)
    until(chrome, lambda: "Nothing answers" in trouble(chrome))
    assert_plain(chrome)
    with serving("--threads", "1", port=port, known_tools=False):
        until(chrome, lambda: one(chrome, "#model").text == "mini")


@pytest.mark.parametrize("ending", ["drained", "refused"])
def test_a_server_that_ends(chrome, ending):
    drain = "0.5" if ending == "drained" else "20"
    with serving("--threads", "1", "--drain", drain, known_tools=False) as (process, port):
        open_page(chrome, port)
        if ending == "drained":
            settings(chrome, schema=ENDLESS, max_tokens="2000")
            send(chrome, "play some jazz")
            until(chrome, lambda: all_of(chrome, ".canvas .token"))
            process.send_signal(signal.SIGTERM)
        else:
            threading.Thread(target=keep_busy, args=(port,), daemon=True).start()
            wait_until(lambda: b"redraft_queue 1.0" in ask(port, "GET", "/metrics")[1])
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: ask(port, "GET", "/ready")[0] == 503)
            send(chrome, "play some jazz")
        until(chrome, lambda: "shutting down" in error(chrome))
        assert "try again when it is back" in error(chrome)
        assert "No connection" in trouble(chrome)
        assert all_of(chrome, ".again")
        assert_plain(chrome)


def test_a_server_that_is_busy(chrome):
    with serving_with(max_running=1, max_waiting=1) as (_, port):
        open_page(chrome, port)
        chrome.execute_script(
            """
            window.stopped = new AbortController();
            for (let i = 0; i < 2; i += 1) {
              const headers = { "content-type": "application/json", authorization: `Bearer ${arguments[1]}` };
              const sent = { method: "POST", headers, body: arguments[0], signal: stopped.signal };
              fetch("/v1/chat/completions", sent).catch(() => {});
            }
            """,
            json.dumps(LONG),
            KEY,
        )
        wait_until(lambda: b"redraft_queue 2.0" in ask(port, "GET", "/metrics")[1])
        send(chrome, "play some jazz")
        until(chrome, lambda: "The server is busy with other requests. Try again in 3 seconds." in error(chrome))
        assert trouble(chrome) == "", "it is there"
        one(chrome, "#show-infill").click()
        one(chrome, "#redraft").click()
        until(chrome, lambda: "busy" in one(chrome, "#fill-note").text)
        one(chrome, "#show-chat").click()
        chrome.execute_script("stopped.abort()")
        wait_until(lambda: b"redraft_queue 0.0" in ask(port, "GET", "/metrics")[1])
        click(chrome, ".again")
        until(chrome, lambda: all_of(chrome, ".reply > .numbers"))
        assert not all_of(chrome, ".turn .error")


def test_the_infill_view_keeps_its_text(chrome, served):
    process, port = served
    open_page(chrome, port)
    one(chrome, "#show-infill").click()
    draft = one(chrome, "#draft")
    draft.clear()
    draft.send_keys("play [[...]] by Nina Simone")
    process.end()
    one(chrome, "#redraft").click()
    until(chrome, lambda: "Nothing answers" in one(chrome, "#fill-note").text)
    assert draft.get_property("value") == "play [[...]] by Nina Simone"
    assert_plain(chrome)
    with serving("--threads", "1", port=port, known_tools=False):
        until(chrome, lambda: trouble(chrome) == "The server answers again.")
        one(chrome, "#redraft").click()
        until(chrome, lambda: "steps" in one(chrome, "#fill-note").text)


def test_another_model_at_the_same_place(chrome, served):
    process, port = served
    open_page(chrome, port)
    process.end()
    with serving("--threads", "1", "--served-name", "other", port=port, known_tools=False):
        send(chrome, "play some jazz")
        until(chrome, lambda: "another model" in error(chrome))
        until(chrome, lambda: one(chrome, "#model").text == "other")
        click(chrome, ".again")
        until(chrome, lambda: all_of(chrome, ".reply > .numbers"))


def test_what_failed_is_no_part_of_what_the_model_sees(page):
    settings(page, schema='{"type": "what"}')
    send(page, "one")
    until(page, lambda: error(page))
    settings(page, schema="")
    page.execute_script("""
        window.sent = [];
        const real = window.fetch;
        window.fetch = (path, options) => {
          if (options?.body) sent.push(JSON.parse(options.body).messages.map(({ content }) => content));
          return real(path, options);
        };
    """)
    say(page, "two")
    assert page.execute_script("return sent") == [["two"]]
    assert not all_of(page, ".again"), "only the last turn can be tried again"
