"""The application: routes, errors and the guard around them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from retrieval.encoding.loaded_models import LoadModels
from retrieval.errors import DiffSimError, UsageError
from retrieval.serving.errors import NotFoundError, headers_of, status_of, to_json
from retrieval.serving.page.rendering import STATIC, wants_page
from retrieval.serving.routes import group_pages, group_routes, health_routes, index_routes, page_routes, search_routes
from retrieval.serving.routes.page_routes import message_page
from retrieval.serving.routes.search_routes import sentence_of
from retrieval.serving.safety.guard import Guard
from retrieval.serving.server import Server
from retrieval.settings import ServerSettings
from retrieval.version import VERSION

_KINDS = {404: "not_found", 405: "method", 408: "deadline", 413: "limit", 429: "busy"}


def create_app(
    indexes: Mapping[str, str | Path], settings: ServerSettings | None = None, load: LoadModels | None = None
) -> ASGIApp:
    """Return an ASGI application that serves indexes by name; its lifespan loads the models and answers what is left.

    Args:
        indexes: folders or URLs by name; the first one is the default.
        settings: where and how the server runs; the token and the names of hosts are checked by the application.
        load: loads the models; None: :func:`retrieval.encoding.loaded_models.load_models`.

    Raises:
        UsageError: no index, or a name that can't stand in a URL.
        IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :meth:`retrieval.Engine.open`.
    """
    server = Server(indexes, settings or ServerSettings(), load)
    app = routed_app()
    app.state.server = server
    return Guard(app, server.access, server.metrics, server.settings.limits.body_bytes, refuse)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    server: Server = app.state.server
    server.start()
    yield
    await run_in_threadpool(server.stop)


def routed_app() -> FastAPI:
    """Return the routes and the answers to errors; its state takes the server that answers."""
    app = FastAPI(
        title="DiffSim Retrieval",
        version=VERSION,
        description="Image search by style, subject or meaning, by exact DiffSim scores.",
        lifespan=_lifespan,
        docs_url=None,  # FastAPI's page loads scripts from another site
        redoc_url=None,
    )
    for module in (search_routes, index_routes, group_routes, health_routes, page_routes, group_pages):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(DiffSimError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_wrong_body)
    app.add_exception_handler(HTTPException, _on_http_error)
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DiffSimError)
    return refuse(request, error)


async def _on_wrong_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return refuse(request, UsageError(sentence_of(error.errors())))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail: Any = error.detail
    kind = _KINDS.get(error.status_code, "request")
    if error.status_code == NotFoundError.status and wants_page(request):
        return refuse(request, NotFoundError("This server has no page at that address."))
    body = detail if isinstance(detail, dict) else {"error": str(detail), "kind": kind}
    return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))


def refuse(request: Request, error: DiffSimError) -> Response:
    """Return the answer to a request that met an error."""
    if wants_page(request):
        answer = message_page(request, error)
        answer.headers.update(headers_of(error))
        return answer
    return JSONResponse(to_json(error), status_of(error), headers=headers_of(error))
