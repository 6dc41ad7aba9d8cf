"""Indexes and their items: descriptions, pictures, a map, and uploads that the server holds for a while."""

import asyncio
import json
from pathlib import PurePath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from retrieval.errors import ImageError, UsageError
from retrieval.images.decoding import decode_bytes
from retrieval.search.browsing.catalogue import Item, original
from retrieval.search.engine import Engine
from retrieval.search.queries.picture import UNNAMED
from retrieval.search.results import SCHEMA
from retrieval.serving.asking.questions import check_limit, decode_rules
from retrieval.serving.asking.request_models import MAX_ID
from retrieval.serving.errors import GoneError
from retrieval.serving.indexes.served_index import ServedIndex
from retrieval.serving.routes.answer_models import (
    ERRORS,
    ErrorAnswer,
    IndexesAnswer,
    ItemAnswer,
    ItemsAnswer,
    MapAnswer,
    UploadAnswer,
)
from retrieval.serving.routes.asking import server_of
from retrieval.serving.routes.search_routes import FILE, form_body, multipart
from retrieval.serving.server import Server

router = APIRouter(prefix="/v1", responses=ERRORS, tags=["indexes"])

ITEMS = 100  # of a page, by default
SIDES = (128, 256, 512, 1024)  # px of thumbnails
KEPT = "private, max-age=31536000, immutable"
MEDIA = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "AVIF": "image/avif"}
MEDIA |= {"TIFF": "image/tiff", "BMP": "image/bmp", "DIB": "image/bmp", "HEIC": "image/heic"}
GONE: dict[int | str, dict[str, Any]] = {410: {"model": ErrorAnswer, "description": "The file is gone or changed."}}

Name = Annotated[str, Path(description="The index's name.")]
Side = Annotated[int, Query(description=f"Pixels of the longer side: {', '.join(map(str, SIDES))}.")]
Number = Annotated[int, Path(ge=0, le=MAX_ID, description="The item's id.")]


def index_json(index: ServedIndex) -> dict[str, Any]:
    """Return what a list of indexes says about one."""
    about = index.engine.catalogue.about()
    return {
        "name": index.name,
        **about,
        "modes": list(index.engine.modes),
        "encoders": list(index.engine.catalogue.encoders),
        "failure": None if index.failure is None else str(index.failure),
    }


def check_side(side: int) -> None:
    """Raise a UsageError for a side that no thumbnail has."""
    if side not in SIDES:
        raise UsageError(f"there are no thumbnails of {side} px; known: {', '.join(map(str, SIDES))}")


def item_json(item: Item) -> dict[str, Any]:
    """Return one item."""
    return {
        "id": item.id,
        "path": item.uri,
        "name": PurePath(item.uri).name,
        "size": item.size,
        "width": item.width,
        "height": item.height,
        "modified": item.mtime_ns / 1e9,
        "sha256": item.sha256,
    }


@router.get("/indexes", responses={200: {"model": IndexesAnswer}}, response_class=JSONResponse)
def list_indexes(request: Request) -> Response:
    """List the indexes of this server, its default first."""
    each = [index_json(index) for index in server_of(request).indexes.values()]
    return JSONResponse({"schema": SCHEMA, "indexes": each})


@router.get("/limits", response_class=JSONResponse)
def list_limits(request: Request) -> dict[str, int]:
    """List the most that one request may ask for, by the name that a refusal has in `limit`."""
    return vars(server_of(request).settings.limits)


@router.get("/indexes/{name}", response_class=JSONResponse)
def describe(request: Request, name: Name) -> dict[str, Any]:
    """Describe an index: settings, modes, segments, coverage and sizes."""
    return server_of(request).index(name).info()


@router.get("/indexes/{name}/items", responses={200: {"model": ItemsAnswer}}, response_class=JSONResponse)
def list_items(
    request: Request,
    name: Name,
    first: Annotated[int, Query(ge=0, le=MAX_ID, description="Position of the first item.")] = 0,
    count: Annotated[int | None, Query(ge=1, le=MAX_ID, description="How many items; by default 100 or fewer.")] = None,
    ids: Annotated[str, Query(pattern="^([0-9]{1,18}(,[0-9]{1,18})*)?$", description="These items instead.")] = "",
) -> Response:
    """List items in the order of their ids, or those of some ids in the order that is asked for."""
    server, wanted = server_of(request), [int(number) for number in ids.split(",") if number]
    most = server.settings.limits.page
    asked = len(wanted) or count or min(most, ITEMS)
    check_limit("page", most, asked, "a page of {} items")
    engine = server.index(name).engine
    found = engine.catalogue.some(wanted) if wanted else engine.catalogue.page(first, asked)
    items = [item_json(item) for item in found]
    about = {"index": name, "generation": engine.catalogue.generation, "total": len(engine), "first": first}
    return JSONResponse({"schema": SCHEMA, **about, "items": items})


@router.get("/indexes/{name}/find", responses={200: {"model": ItemAnswer}}, response_class=JSONResponse)
def find_item(
    request: Request,
    name: Name,
    text: Annotated[str, Query(min_length=1, max_length=4096, description="`id:N`, a path, or the end of a path.")],
) -> Response:
    """Find the one item that a text means. No file is looked at."""
    return JSONResponse(item_json(server_of(request).index(name).engine.catalogue.one(text)))


@router.get("/indexes/{name}/items/{number}", responses={200: {"model": ItemAnswer}}, response_class=JSONResponse)
def describe_item(request: Request, name: Name, number: Number) -> Response:
    """Describe one item."""
    server = server_of(request)
    return JSONResponse(item_json(server.item(server.index(name), number)))


_PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/*": {}}, "description": "The picture."}, **GONE}


@router.get("/indexes/{name}/items/{number}/thumbnail", responses=_PICTURE, response_class=Response)
async def show_thumbnail(
    request: Request,
    name: Name,
    number: Number,
    side: Side = 256,
) -> Response:
    """Return a small JPEG of an item."""
    check_side(side)
    server = server_of(request)
    item = server.item(server.index(name), number)
    tag = f'"{item.sha256[:32]}-{side}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag, "cache-control": KEPT})
    loop = asyncio.get_running_loop()
    data = await loop.run_in_executor(server.browsers, server.thumbnail, item, side)
    return Response(data, media_type="image/jpeg", headers={"etag": tag, "cache-control": KEPT})


@router.get("/indexes/{name}/items/{number}/original", responses=_PICTURE, response_class=Response)
async def show_original(request: Request, name: Name, number: Number) -> Response:
    """Return the file of an item, byte by byte as it was indexed."""
    server = server_of(request)
    item = server.item(server.index(name), number)
    try:
        data, kind = await asyncio.get_running_loop().run_in_executor(server.browsers, original, item)
    except ImageError as error:
        raise GoneError(str(error)) from error
    headers = {"content-security-policy": "default-src 'none'; sandbox", "cache-control": "private, no-cache"}
    return Response(data, media_type=MEDIA[kind], headers=headers)


@router.get("/indexes/{name}/map", responses={200: {"model": MapAnswer}}, response_class=JSONResponse)
def show_map(
    request: Request, name: Name, mode: Annotated[str | None, Query(max_length=64, description="A mode.")] = None
) -> Response:
    """Return the place of every image in a plane, so that images that are alike lie near each other."""
    index = server_of(request).index(name)
    shown = mode or index.engine.modes[0]
    return Response(index.map(shown, lambda engine: _map(index.name, engine, shown)), media_type="application/json")


def _map(name: str, engine: Engine, mode: str) -> bytes:
    """Return the JSON of a map as it is sent: with many items it takes longer to make than to keep."""
    x, y = (column.tolist() for column in np.round(engine.catalogue.map(mode).T.astype(np.float64), 4))
    about = {"schema": SCHEMA, "index": name, "generation": engine.catalogue.generation, "mode": mode}
    return json.dumps({**about, "ids": engine.catalogue.ids.tolist(), "x": x, "y": y}).encode()


@router.post(
    "/uploads",
    responses={200: {"model": UploadAnswer}},
    response_class=JSONResponse,
    openapi_extra=form_body(image=FILE),
    tags=["search"],
)
async def upload(request: Request) -> Response:
    """Hold an image for a while, so that several searches can ask with it by its key."""
    server = server_of(request)
    (data, *_), _ = await multipart(request)

    loop = asyncio.get_running_loop()
    return JSONResponse(await loop.run_in_executor(server.readers, picture_facts, server, data))


def picture_facts(server: Server, data: bytes) -> dict[str, Any]:
    """Hold an image that can be decoded, and return its key and size; an ImageError for any other."""
    _, (width, height) = decode_bytes(data, UNNAMED, decode_rules(server.settings.limits))
    return {"upload": server.keep(data), "width": width, "height": height}


@router.get("/uploads/{key}/thumbnail", responses=_PICTURE, response_class=Response, tags=["search"])
async def show_upload(
    request: Request,
    key: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The key of an upload.")],
    side: Side = 256,
) -> Response:
    """Return a small JPEG of an upload, while the server holds it."""
    server = server_of(request)
    check_side(side)
    loop = asyncio.get_running_loop()
    data = await loop.run_in_executor(server.browsers, server.upload_thumbnail, key, side)
    return Response(data, media_type="image/jpeg", headers={"cache-control": KEPT})
