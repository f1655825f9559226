"""`POST /v1/decisions` and `POST /v1/systemone`: typed questions about a state, answered with probabilities."""

from __future__ import annotations

import secrets
from functools import partial

from fastapi import APIRouter, Request, Response

from redraft.core.decisions import Decisions
from redraft.core.errors import InputError
from redraft.core.strict_json import strict_json
from redraft.decide.calibration import suits
from redraft.decide.state import State
from redraft.server.decision_formats import ANY_MODEL, AnyBody, asked, options_of, refused, reply
from redraft.server.decision_schema import AnyRequest, DecisionsRequest
from redraft.server.flight import Server
from redraft.server.rounds import Decider, Rounds


def routes(server: Server) -> APIRouter:
    """The routes, on this server: either takes either body."""
    router = APIRouter(prefix="/v1")

    @router.post("/decisions", summary="Questions about an input, as OpenAI's API has them; or System One's body")
    async def decisions(request: Request, body: AnyRequest) -> Response:
        return await _answer(server, request, body)

    @router.post("/systemone", summary="Questions about a state, as System One has them; or OpenAI's body")
    async def systemone(request: Request, body: AnyRequest) -> Response:
        return await _answer(server, request, body)

    return router


async def _answer(server: Server, request: Request, body: AnyBody) -> Response:
    of_openai = isinstance(body, DecisionsRequest)
    named = body.model is not None and (of_openai or body.model != ANY_MODEL)
    model = str(body.model) if named else server.settings.model
    engine = server.engine_of(model)
    request_id = f"decision-{secrets.token_hex(12)}"
    decider = Decider(server, request, engine, model, "input" if of_openai else "state")
    try:
        decided = await _decided(server, decider, body, request_id)
        # A reply may have a hundred thousand probabilities.
        make = partial(_written, body, model, request_id, decided)
        return Response(await decider.work(make), media_type="application/json")
    except InputError as error:
        raise refused(error, body) from None
    finally:
        decider.close()


async def _decided(server: Server, decider: Decider, body: AnyBody, request_id: str) -> Decisions:
    """The answers, counted and, where the operator wants it so, written down."""
    state, questions = await decider.work(partial(asked, body))
    if isinstance(state, State):
        server.check_pictures(state.conversation)
    elif isinstance(state, list):
        server.check_pictures(state)

    def begin() -> Rounds:
        options, calibration = options_of(body), server.settings.calibration
        # It was found with the model alone.
        if calibration is not None and decider.engine is server.engine and suits(calibration, options):
            options = options.with_changes(calibration=calibration)
        return decider.engine.deciding(state, questions, options)

    log = server.log
    if log is not None:
        log.request(request_id, body)
    try:
        decided = await decider.decide(begin)
    except Exception as error:
        if log is not None:
            log.answer(request_id, {"error": str(error)})
        raise
    server.metrics.decided(decider.model, decided)
    if log is not None:
        log.answer(request_id, decided.to_dict())
    return decided


def _written(body: AnyBody, model: str, request_id: str, decided: Decisions) -> bytes:
    return strict_json(reply(body, model, request_id, decided), ensure_ascii=False).encode()
