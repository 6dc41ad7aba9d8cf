"""Render the page's templates."""

from functools import cache
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from retrieval.search.browsing.catalogue import Item
from retrieval.search.results import Result, Results
from retrieval.serving.page.page_state import PageImage, PageState
from retrieval.text import printable
from retrieval.version import VERSION

HERE = Path(__file__).parent
STATIC = HERE / "static"
RENDERED = 120  # cards in the page itself; modules of the page draw the others as they are scrolled to
SIDE = 256  # px of a card's picture


@cache
def templates() -> Environment:
    """Return the environment of the templates; every value is escaped."""
    made = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
    made.globals |= {
        "static": lambda name: f"/static/{name}?v={quote(VERSION)}",
        "thumbnail": thumbnail_url,
        "original": lambda index, number: f"{_item_url(index, number)}/original",
        "asked_picture": asked_picture,
    }
    return made


def page(template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    """Return a page."""
    common = {"state": None, "indexes": [], "view": "", **values}
    return HTMLResponse(templates().get_template(template).render(common), status_code)


def wants_page(request: Request) -> bool:
    """Say whether a person looks at the answer in a browser."""
    is_api = request.url.path.startswith(("/v1/", "/healthz", "/readyz", "/metrics", "/openapi"))
    return not is_api and "text/html" in request.headers.get("accept", "")


def _item_url(index: str, number: int) -> str:
    return f"/v1/indexes/{quote(index, safe='')}/items/{number}"


def thumbnail_url(index: str, number: int, key: str = "", side: int = SIDE) -> str:
    """Return the address of an item's picture; ``key`` is the beginning of its SHA-256."""
    return f"{_item_url(index, number)}/thumbnail?side={side}" + (f"&v={key}" if key else "")


def asked_picture(index: str, image: PageImage) -> str:
    """Return the address of a picture of the question."""
    if image.id is None:
        return f"/v1/uploads/{image.upload}/thumbnail?side=512"
    return thumbnail_url(index, image.id, side=512)


def short_name(path: str) -> str:
    """Return the folder and the name of a file, for people."""
    return printable("/".join(PurePath(path).parts[-2:]))


def item_card(item: Item) -> dict[str, Any]:
    """Return what a card says about an item."""
    return {**bare_card(item.id, item.uri, item.sha256), "score": None, "box": None, "percentile": None}


def result_card(result: Result) -> dict[str, Any]:
    """Return what a card says about a result."""
    shown = {"score": result.shown_score, "box": result.found_box, "percentile": result.percentile}
    return {**bare_card(result.id, result.path, result.sha256), **shown}


def bare_card(number: int, path: str, sha256: str) -> dict[str, Any]:
    """Return what every card says; ``sha256`` may be empty, and its picture is then asked for by id alone."""
    return {"id": number, "path": printable(path), "name": short_name(path), "key": sha256[:12]}


def results_column(results: Results) -> dict[str, Any]:
    """Return a column of results."""
    cards = [result_card(result) for result in results]
    return {
        "label": results.mode,
        "cards": cards,
        "shown": cards[:RENDERED],
        "more": "",
        "notes": [printable(note.message) for note in results.notes],
        "ms": round(results.timing_ms["total"], 1),
    }


def items_column(state: PageState, items: list[Item], first: int, total: int) -> dict[str, Any]:
    """Return a column of the collection, from position ``first`` on."""
    cards = [item_card(item) for item in items]
    following = first + len(items)
    more = f"{state.url('/')}&first={following}" if following < total else ""
    label = "All pictures" if not first else f"Pictures from {first + 1} on"
    return {"label": label, "cards": [], "shown": cards, "more": more, "notes": [], "ms": 0}
