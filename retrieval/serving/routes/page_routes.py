"""The page: search, browse and the map; the address says everything, so links and the back button work."""

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError
from starlette.datastructures import FormData

from retrieval.errors import DiffSimError, UsageError
from retrieval.serving.errors import NotFoundError, UnauthorizedError, status_of
from retrieval.serving.indexes.served_index import ServedIndex
from retrieval.serving.page.page_state import FORM_FIELDS, RESULTS, PageImage, PageState
from retrieval.serving.page.rendering import RENDERED, items_column, page, results_column, short_name
from retrieval.serving.routes.asking import Asking, server_of
from retrieval.serving.routes.index_routes import picture_facts
from retrieval.serving.routes.search_routes import files_of, sentence_of
from retrieval.serving.safety.access import COOKIE
from retrieval.serving.server import Server

router = APIRouter(include_in_schema=False)

COOKIE_SECONDS = 30 * 24 * 3600


@router.get("/")
async def show_search(request: Request, first: str = "0") -> Response:
    """Show the results of the question in the address, or the collection."""
    server, state = server_of(request), PageState.of(request.query_params)
    index = server.index(state.index or None)
    state = replace(state, index=index.name)
    columns, error, status = [], "", 200
    try:
        columns = await _columns(request, state, index) if state.asks else [_collection(index, state, first)]
    except ValidationError as wrong:
        error, status = sentence_of(wrong.errors()), 422
    except DiffSimError as wrong:
        error, status = str(wrong), status_of(wrong)
    return page("search.html", status, **page_values(server, state, index, columns, error), view="search")


async def _columns(request: Request, state: PageState, index: ServedIndex) -> list[dict[str, Any]]:
    modes = dict.fromkeys(mode for mode in (state.mode or index.engine.modes[0], state.compare) if mode)
    found = []
    for mode in modes:
        asked = state.request(mode, results_of(server_of(request)))
        found.append(results_column(await Asking.of(request, asked).search(asked)))
    return found


def results_of(server: Server) -> int:
    """Return how many results the page asks for by default."""
    return min(RESULTS, server.settings.limits.k)


def _collection(index: ServedIndex, state: PageState, first: str) -> dict[str, Any]:
    place = int(first[:18]) if first.isdecimal() else 0
    catalogue = index.engine.catalogue
    return items_column(state, catalogue.page(place, RENDERED), place, len(catalogue))


def page_values(
    server: Server, state: PageState, index: ServedIndex, columns: list[dict[str, Any]], error: str
) -> dict[str, Any]:
    """Return the values that the templates of an index's pages need."""
    engine = index.engine
    names = {}
    for image in (*state.images, *state.minus):
        item = None if image.id is None else engine.catalogue.item(image.id)
        if item is not None:
            names[image.name] = short_name(item.uri)
    status = "" if error else _status(state, columns, len(engine))
    return {
        "state": state,
        "indexes": list(server.indexes.values()),
        "modes": engine.modes,
        "shown_mode": state.mode or engine.modes[0],
        "names": names,
        "has_text": engine.catalogue.has_text,
        "limits": server.settings.limits,
        "results_by_default": results_of(server),
        "failure": "" if index.failure is None else str(index.failure),
        "error": error,
        "columns": columns,
        "total": len(engine),
        "status": status,
        "data": {
            "index": index.name,
            "modes": list(engine.modes),
            "total": len(engine),
            "results": results_of(server),
            "names": names,
            "columns": [{**column, "shown": []} for column in columns],
        },
    }


def _status(state: PageState, columns: list[dict[str, Any]], total: int) -> str:
    if not state.asks:
        return f"{total} pictures"
    return ", ".join(f"{len(column['cards'])} by {column['label']} in {column['ms']:.0f} ms" for column in columns)


@router.post("/search")
async def ask(request: Request) -> Response:
    """Take the form of the page: hold its files, and go to the address that asks with them."""
    server, state = server_of(request), PageState.of(request.query_params)
    index = server.index(state.index or None)
    async with request.form(max_files=server.settings.limits.images, max_fields=32) as form:
        typed: dict[str, Any] = {name: _text(form, name) for name in FORM_FIELDS}
        state = replace(state, index=index.name, **typed)
        files = await files_of(form, server.settings.limits.image_bytes)
        added = [await _held(server, data) for data in files if data]  # a form without a chosen file sends an empty one
        if text := _text(form, "text"):
            added.append(PageImage(index.engine.catalogue.one(text).id))
        if added:
            keep = bool(_text(form, "add"))
            state = replace(state, images=(*state.images, *added) if keep else tuple(added))
            state = state if keep else replace(state, minus=(), box="")
    return RedirectResponse(state.url(), 303)


async def _held(server: Server, data: bytes) -> PageImage:
    loop = asyncio.get_running_loop()
    facts = await loop.run_in_executor(server.readers, picture_facts, server, data)
    return PageImage(upload=facts["upload"])


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


@router.get("/map")
async def show_map_page(request: Request) -> Response:
    """Show the map of an index; a module of the page draws it."""
    server, state = server_of(request), PageState.of(request.query_params)
    index = server.index(state.index or None)
    state = replace(state, index=index.name)
    if state.mode and state.mode not in index.engine.modes:
        raise UsageError(f"unknown mode '{state.mode}'; known: {', '.join(index.engine.modes)}")
    return page("map.html", **page_values(server, state, index, [], ""), view="map")


@router.get("/login")
async def show_login(request: Request, next: str = "/") -> Response:
    """Ask for the token."""
    return page("login.html", next=_inside(next), message="")


@router.post("/login")
async def login(request: Request) -> Response:
    """Take the token, and remember in the browser that it was right."""
    access = server_of(request).access
    async with request.form(max_files=1, max_fields=4) as form:
        token, onward = _text(form, "token"), _inside(_text(form, "next"))
    if not access.accepts(token):
        return page("login.html", UnauthorizedError.status, next=onward, message="That is not the token.")
    answer = RedirectResponse(onward, 303)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(
        COOKIE, access.cookie(), COOKIE_SECONDS, httponly=True, samesite="strict", secure=is_secure, path="/"
    )
    return answer


def _inside(address: str) -> str:
    """Return an address of this server; any other becomes the first page."""
    is_inside = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_inside else "/"


def message_page(request: Request, error: DiffSimError) -> Response:
    """Return the page that says why there is no other."""
    server = server_of_state(request)
    if isinstance(error, UnauthorizedError) and request.method == "GET":
        query = f"?{request.url.query}" if request.url.query else ""
        return page("login.html", error.status, next=request.url.path + query, message="")
    heading = "There is no such page" if isinstance(error, NotFoundError) else "That did not work"
    known = list(server.indexes) if server is not None and isinstance(error, NotFoundError) else []
    return page("message.html", status_of(error), heading=heading, message=str(error), known=known)


def server_of_state(request: Request) -> Server | None:
    """Return the server; None outside the application, where a request was refused before it came in."""
    app = request.scope.get("app")
    return None if app is None else app.state.server
