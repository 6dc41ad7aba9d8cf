"""Duplicates and clusters of an index: work of minutes, which a request may wait for a while."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from retrieval.grouping.cluster_results import Clusters
from retrieval.grouping.results import Duplicates
from retrieval.serving.asking.questions import check_limit
from retrieval.serving.asking.request_models import ClusterFields, DuplicateFields
from retrieval.serving.queueing.long_work import Piece
from retrieval.serving.routes.answer_models import ERRORS
from retrieval.serving.routes.asking import server_of
from retrieval.serving.routes.group_answers import ClustersAnswer, DuplicatesAnswer, WorkingAnswer
from retrieval.serving.routes.index_routes import Name

router = APIRouter(prefix="/v1", responses=ERRORS, tags=["groups"])

AGAIN_SECONDS = 1  # after which a request for work that goes on may come back
_WORKING: dict[int | str, dict[str, Any]] = {
    202: {"model": WorkingAnswer, "description": "The work goes on: ask again after Retry-After seconds."}
}


@router.get(
    "/indexes/{name}/duplicates", responses={200: {"model": DuplicatesAnswer}, **_WORKING}, response_class=JSONResponse
)
async def list_duplicates(request: Request, name: Name, asked: Annotated[DuplicateFields, Query()]) -> Response:
    """List copies of the same picture and which one to keep, and images that are only similar. Deletes nothing."""
    return await _answer(request, name, asked)


@router.get(
    "/indexes/{name}/clusters", responses={200: {"model": ClustersAnswer}, **_WORKING}, response_class=JSONResponse
)
async def list_clusters(request: Request, name: Name, asked: Annotated[ClusterFields, Query()]) -> Response:
    """Divide an index into clusters of one mode; images of no cluster are noise."""
    return await _answer(request, name, asked)


async def _answer(request: Request, name: str, asked: DuplicateFields | ClusterFields) -> Response:
    server = server_of(request)
    check_limit("deadline_ms", server.settings.limits.deadline_ms, asked.wait_ms, "waiting for {} ms")
    piece = server.grouping(server.index(name), asked.settings())
    if not await piece.wait(asked.wait_ms / 1000):
        return JSONResponse(progress_json(piece), 202, headers={"Retry-After": str(AGAIN_SECONDS)})
    return await run_in_threadpool(_groups_answer, piece.value())


def _groups_answer(found: Duplicates | Clusters) -> Response:
    return JSONResponse({**found.to_dict(), "note_details": [asdict(note) for note in found.notes]})


def progress_json(piece: Piece) -> dict[str, Any]:
    """Return where a piece of work stands."""
    progress = piece.progress
    if progress is None:
        return {"stage": "waiting", "done": 0, "total": 0}
    return {"stage": progress.stage, "done": progress.done, "total": progress.total}
