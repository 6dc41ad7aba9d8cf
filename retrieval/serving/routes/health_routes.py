"""Health, readiness and metrics, for whatever watches the server."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from retrieval.serving.routes.answer_models import HealthAnswer
from retrieval.serving.routes.asking import server_of
from retrieval.version import VERSION

router = APIRouter(tags=["health"])


@router.get("/healthz", responses={200: {"model": HealthAnswer}}, response_class=JSONResponse)
async def healthz() -> Response:
    """Say that the process answers."""
    return JSONResponse({"status": "ok", "version": VERSION})


@router.get("/readyz", responses={200: {"model": HealthAnswer}, 503: {"model": HealthAnswer}})
async def readyz(request: Request) -> Response:
    """Say whether searches are answered: the models are loaded, and the server is not stopping."""
    reason = server_of(request).not_ready()
    return JSONResponse({"status": reason or "ready", "version": VERSION}, 503 if reason else 200)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Return counters and times for Prometheus."""
    return Response(server_of(request).metrics.page(), media_type=CONTENT_TYPE_LATEST)
