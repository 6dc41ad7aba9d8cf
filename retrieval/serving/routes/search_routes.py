"""Search, score and explain."""

import io
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as FormFile

from retrieval.errors import DiffSimError, UsageError
from retrieval.search.engine import Engine
from retrieval.search.explaining.explanation import ImageExplanation
from retrieval.search.explaining.explanation_sheet import explanation_picture
from retrieval.search.queries.query import Query
from retrieval.search.results import SCHEMA
from retrieval.serving.asking.questions import check_limit
from retrieval.serving.asking.request_models import (
    AskedImage,
    ExplainRequest,
    ScoreRequest,
    SearchManyRequest,
    SearchRequest,
)
from retrieval.serving.errors import RequestError, TooLargeError, to_json
from retrieval.serving.routes.answer_models import ERRORS, ExplainAnswer, ScoreAnswer, SearchAnswer, SearchManyAnswer
from retrieval.serving.routes.asking import Asking, results_json, server_of

router = APIRouter(prefix="/v1", responses=ERRORS, tags=["search"])

OPTIONS_FIELD = "options"
FILE = {"type": "string", "format": "binary"}


def form_body(**properties: dict[str, Any]) -> dict[str, Any]:
    """Return how the OpenAPI document describes the body of a form with these fields, of which ``image`` is needed."""
    schema = {"type": "object", "properties": properties, "required": ["image"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_OPTIONS = {
    "type": "string",
    "description": "The JSON of POST /v1/search. Images name files by their `part`, counted from 0; without `images`, "
    "every file is an image of the question.",
}


@router.post("/search", responses={200: {"model": SearchAnswer}}, response_class=JSONResponse)
async def search(request: Request, asked: SearchRequest) -> Response:
    """Find the images that are most like a picture, a region or a board."""
    results = await Asking.of(request, asked).search(asked)
    return JSONResponse(results_json(results))


@router.post(
    "/search/upload",
    responses={200: {"model": SearchAnswer}},
    response_class=JSONResponse,
    openapi_extra=form_body(image={"type": "array", "items": FILE, "minItems": 1}, **{OPTIONS_FIELD: _OPTIONS}),
)
async def search_upload(request: Request) -> Response:
    """Search with image files of a multipart request."""
    files, text = await multipart(request)
    try:
        asked = SearchRequest.model_validate_json(text or "{}")
    except ValidationError as error:
        raise UsageError(f"{OPTIONS_FIELD}: {sentence_of(error.errors())}") from error
    if not asked.images:
        asked = asked.model_copy(update={"images": [_part(number) for number in range(len(files))]})
    results = await Asking.of(request, asked, files).search(asked)
    return JSONResponse(results_json(results))


@router.post("/search/many", responses={200: {"model": SearchManyAnswer}}, response_class=JSONResponse)
async def search_many(request: Request, asked: SearchManyRequest) -> Response:
    """Ask several questions at once; a bad one has an error in its place and does not stop the others."""
    answers = await Asking.of(request, asked).search_many(asked.queries, asked)
    each = [to_json(found) if isinstance(found, DiffSimError) else results_json(found) for found in answers]
    return JSONResponse({"schema": SCHEMA, "answers": each})


@router.post("/score", responses={200: {"model": ScoreAnswer}}, response_class=JSONResponse)
async def score(request: Request, asked: ScoreRequest) -> Response:
    """Return the exact score of one pair."""
    asking = Asking.of(request, asked)

    def read(engine: Engine) -> list[Query]:
        return [engine.read_query(asking.reader.image(engine, source)) for source in (asked.first, asked.second)]

    def work(engine: Engine, pair: list[Query]) -> dict[str, Any]:
        mode = asked.mode or engine.modes[0]
        return {"mode": mode, "score": engine.score(pair[0], pair[1], mode)}

    found = await asking.call(read, work)
    return JSONResponse({"schema": SCHEMA, "index": asking.index.name, **found})


async def explained(request: Request, asked: ExplainRequest) -> tuple[Asking, list[ImageExplanation]]:
    """Explain the scores that a request names."""
    asking = Asking.of(request, asked)
    check_limit("explained", asking.server.settings.limits.explained, len(asked.candidates), "{} explanations")

    def read(engine: Engine) -> Query:
        return engine.read_query(asking.reader.image(engine, asked.query))

    def work(engine: Engine, query: Query) -> list[ImageExplanation]:
        return list(engine.explain_all(query, asked.candidates, asked.mode, asked.correspondences))

    return asking, await asking.call(read, work)


Explained = Annotated[tuple[Asking, list[ImageExplanation]], Depends(explained)]


@router.post("/explain", responses={200: {"model": ExplainAnswer}}, response_class=JSONResponse)
async def explain(asked: ExplainRequest, found: Explained) -> Response:
    """Say which cells of two pictures make their score, and which cells correspond."""
    asking, explanations = found
    each = [{**one.to_dict(), "id": number} for number, one in zip(asked.candidates, explanations, strict=True)]
    return JSONResponse({"schema": SCHEMA, "index": asking.index.name, "explanations": each})


@router.post(
    "/explain.png", responses={200: {"content": {"image/png": {}}, "description": "A row for each candidate."}}
)
async def explain_as_picture(asked: ExplainRequest, found: Explained) -> Response:
    """Draw which cells of two pictures make their score."""
    asking, explanations = found

    def draw() -> bytes:
        buffer = io.BytesIO()
        explanation_picture(explanations).save(buffer, "PNG")
        return buffer.getvalue()

    return Response(await asking.in_reader(draw), media_type="image/png")


async def multipart(request: Request) -> tuple[list[bytes], str]:
    """Return the files named ``image`` of a multipart request, and its field ``options``.

    Raises:
        RequestError: the body is no such form.
        TooLargeError: a file is too large.
    """
    limits = server_of(request).settings.limits
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RequestError("the body must be multipart/form-data")
    async with request.form(max_files=limits.images, max_fields=8) as form:
        files = await files_of(form, limits.image_bytes)
        options = form.get(OPTIONS_FIELD, "")
    if not files:
        raise RequestError("the form has no file named 'image'")
    return files, options if isinstance(options, str) else ""


async def files_of(form: FormData, most: int) -> list[bytes]:
    """Return the files named ``image`` of a form; a TooLargeError if one has more than ``most`` bytes."""
    files = [part for part in form.getlist("image") if isinstance(part, FormFile)]
    for file in files:
        if (file.size or 0) > most:
            raise TooLargeError("image_bytes", most, f"an image of {file.size} bytes")
    return [await file.read() for file in files]


def _part(number: int) -> AskedImage:
    return AskedImage.model_validate({"part": number})


def sentence_of(errors: Sequence[Any]) -> str:
    """Return the first of pydantic's errors as a clause: where it is, and what is wrong."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
