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
    if isinstance(case.body, dict) and "model" in case.body:
        # Where it is one, a short one.
        case.body["model"] = "mini"
        if isinstance(case.body.get("max_tokens"), int | None) and "text" not in case.body:
            case.body["max_tokens"] = min(case.body.get("max_tokens") or 8, 8)
        if isinstance(case.body.get("n"), int) and case.body["n"] > 1:
            case.body["n"] = 2
    case.call_and_validate(base_url=address, headers=HEADERS, checks=[not_a_server_error])
