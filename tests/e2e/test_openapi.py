"""Whatever our OpenAPI document allows, and what it does not, gets an answer that is no failure of the server."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error

from redraft.server.app import create_app
from redraft.server.settings import Settings
from servers import KEY, serving

HEADERS = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def address():
    with serving("--threads", "1") as (_, port):
        yield f"http://127.0.0.1:{port}"


# The document tells of routes, for which no engine is needed.
schema = schemathesis.openapi.from_dict(create_app(None, Settings()).openapi())


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_fails_the_server(case, address):
    if isinstance(case.body, dict) and ("model" in case.body or "questions" in case.body):
        shorten(case.body)
    case.call_and_validate(base_url=address, headers=HEADERS, checks=[not_a_server_error], timeout=120)


def shorten(body: dict) -> None:
    """Asks the model that is there, and where the request is a good one, for little: what is tried here is the door."""
    body["model"] = "mini"
    if "questions" in body:
        for name in ("draws", "more_draws", "steps"):
            if isinstance(body.get("decide"), dict) and isinstance(body["decide"].get(name), int):
                body["decide"][name] = min(body["decide"][name], 2)
        return
    for holder, name, most in ((body, "n", 2), (body, "max_completion_tokens", 8), (body.get("diffusion"), "steps", 4)):
        if isinstance(holder, dict) and isinstance(holder.get(name), int):
            holder[name] = min(holder[name], most)
    if body.get("max_completion_tokens") is None and isinstance(body.get("max_tokens"), int | None):
        body["max_tokens"] = min(body.get("max_tokens") or 8, 64 if "text" in body else 8)
