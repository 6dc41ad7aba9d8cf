"""The pages of duplicates and of clusters; they wait for the work without JavaScript, too."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams

from retrieval.errors import DiffSimError, UsageError
from retrieval.grouping.results import Duplicates
from retrieval.serving.asking.request_models import ClusterFields, DuplicateFields
from retrieval.serving.errors import NotFoundError, status_of
from retrieval.serving.indexes.served_index import ServedIndex
from retrieval.serving.page.group_views import GroupPlace, clusters_view, duplicates_view
from retrieval.serving.page.page_state import PageState
from retrieval.serving.page.rendering import page
from retrieval.serving.queueing.long_work import Piece
from retrieval.serving.routes.asking import server_of
from retrieval.serving.routes.group_routes import progress_json
from retrieval.serving.routes.page_routes import page_values
from retrieval.serving.routes.search_routes import sentence_of

router = APIRouter(include_in_schema=False)

PAGE_SECONDS = 1.0  # that a page waits for the work before it is shown without
LOOK_SECONDS = 5.0  # that a look at the work may wait for its end


@dataclass(frozen=True)
class GroupPage:
    """One of these pages: the fields of its question, and what it shows of the answer."""

    name: str
    fields: type[DuplicateFields] | type[ClusterFields]
    view: Callable[[Any, GroupPlace], dict[str, Any]]


PAGES: Mapping[str, GroupPage] = {
    each.name: each
    for each in (
        GroupPage("duplicates", DuplicateFields, duplicates_view),
        GroupPage("clusters", ClusterFields, clusters_view),
    )
}


def _typed(shown: GroupPage, given: QueryParams) -> list[tuple[str, str]]:
    """Return the fields of the question that are not empty, as they were typed."""
    known = shown.fields.model_fields
    return [(name, value.strip()) for name, value in given.multi_items() if name in known and value.strip()]


def _begun(request: Request, shown: GroupPage, index: ServedIndex) -> Piece:
    typed = _typed(shown, request.query_params)
    fields: dict[str, Any] = dict(typed)
    if folders := [value for name, value in typed if name == "references"]:
        fields["references"] = folders
    try:
        asked = shown.fields.model_validate(fields)
    except ValidationError as wrong:
        raise UsageError(sentence_of(wrong.errors())) from wrong
    return server_of(request).grouping(index, asked.settings())


@router.get("/duplicates")
async def show_duplicates(request: Request, first: str = "", only: str = "") -> Response:
    """Show groups of copies, which of each to keep, and groups of similar pictures."""
    return await _show(request, PAGES["duplicates"], first, only)


@router.get("/clusters")
async def show_clusters(request: Request, first: str = "", only: str = "") -> Response:
    """Show the clusters of a mode."""
    return await _show(request, PAGES["clusters"], first, only)


async def _show(request: Request, shown: GroupPage, first: str, only: str) -> Response:
    server, given = server_of(request), request.query_params
    index = server.index(given.get("index") or None)
    typed = _typed(shown, given)
    place = GroupPlace(
        f"/{shown.name}", [("index", index.name), *typed], int(first[:18]) if first.isdecimal() else 0, only
    )
    view, working, error, status, mode = None, None, "", 200, given.get("mode", "")
    try:
        piece = _begun(request, shown, index)
        if await piece.wait(PAGE_SECONDS):
            found = piece.value()
            mode, view = found.mode or "", await run_in_threadpool(shown.view, found, place)
            view["notes"] = [note.message for note in found.notes]
        else:
            working = progress_json(piece)
    except DiffSimError as wrong:
        error, status = str(wrong), status_of(wrong)
    state = PageState(index=index.name, mode=mode)
    values = page_values(server, state, index, [], error) | {
        "asked": {name: field.default for name, field in shown.fields.model_fields.items()} | dict(typed),
        "folders": [value for name, value in typed if name == "references"],
        "place": place,
        "found": view,
        "working": working,
        "data": {"progress": f"/{shown.name}/progress?{request.url.query}" if working else ""},
    }
    return page(f"{shown.name}.html", status, **values, view=shown.name)


@router.get("/{name}/progress")
async def look(request: Request, name: str) -> Response:
    """Say where the work of a page stands; an empty stage: the page can be shown."""
    if name not in PAGES:
        raise NotFoundError("This server has no page at that address.")
    piece = _begun(request, PAGES[name], server_of(request).index(request.query_params.get("index") or None))
    is_done = await piece.wait(LOOK_SECONDS)
    return JSONResponse({"stage": "", "done": 0, "total": 0} if is_done else progress_json(piece))


@router.get("/duplicates/paths")
async def list_paths(request: Request) -> Response:
    """Return the paths of the copies that may be deleted, one a line, as a file."""
    index = server_of(request).index(request.query_params.get("index") or None)
    piece = _begun(request, PAGES["duplicates"], index)
    if not await piece.wait(LOOK_SECONDS):
        raise UsageError("the copies are still being looked for: open the page of duplicates first")
    found: Duplicates = piece.value()
    paths = [member.path for member in found.offered]
    if any("\n" in path for path in paths):
        raise UsageError("a path has a line break in it: take the paths from the JSON under /v1 instead")
    named = {"content-disposition": 'attachment; filename="copies.txt"'}
    lines = b"".join(os.fsencode(path) + b"\n" for path in paths)
    return Response(lines, media_type="application/octet-stream", headers=named)
