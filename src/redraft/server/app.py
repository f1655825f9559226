"""The application: routes, doors, and the engine's thread for as long as it lives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST

from redraft import __version__
from redraft.core.engine import Engine
from redraft.server import adapters, chat, completions, decisions, errors, models, texts
from redraft.server.doors import Doors
from redraft.server.flight import Server
from redraft.server.metrics import Metrics
from redraft.server.request_log import RequestLog
from redraft.server.scheduler import Scheduler
from redraft.server.settings import Settings

PAGE = Path(__file__).parent / "page"


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """An ASGI application that serves one engine; its scheduler is `app.state.scheduler`."""
    metrics = Metrics()
    scheduler = Scheduler(engine, settings, metrics.seen)
    server = Server(engine, settings, scheduler, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await scheduler.stop()
        if server.log is not None:
            server.log.close()

    # FastAPI's own pages load scripts from elsewhere.
    app = FastAPI(title="redraft", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.scheduler = scheduler
    errors.install(app, metrics.refused)
    for module in (models, chat, completions, texts, decisions, adapters):
        app.include_router(module.routes(server))

    @app.get("/health", summary="Whether the process lives")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether it takes requests")
    async def ready() -> JSONResponse:
        if scheduler.draining:
            return JSONResponse({"status": "draining"}, 503)
        if scheduler.stands_still:
            return JSONResponse({"status": "standing still"}, 503)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", summary="For Prometheus")
    async def metrics_page() -> Response:
        return Response(metrics.text(scheduler), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/static", StaticFiles(directory=PAGE), name="static")
    app.add_middleware(Doors, settings=settings)
    app.add_middleware(RequestLog)
    return app
