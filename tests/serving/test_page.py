"""The page as the server renders it, for browsers without JavaScript, and its escapes."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retrieval.errors import UsageError
from retrieval.serving.app import create_app
from retrieval.serving.page.page_state import PageImage, PageState
from tests.serving.conftest import ORIGIN
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import load_tiny

HTML = {"accept": "text/html"}


def cards(page: str) -> list[str]:
    return re.findall(r'<a class="name"[^>]*>([^<]*)</a>', page)


def test_the_first_page_shows_the_collection(client: TestClient) -> None:
    page = client.get("/", headers=HTML).text
    assert len(cards(page)) == 40
    assert ">40 pictures</p>" in page


def test_links_ask_add_and_move_away(client: TestClient) -> None:
    page = client.get("/?image=id:9&k=5&mode=instance", headers=HTML).text
    links = [unescape(link) for link in re.findall(r'href="(/\?[^"]*)"', page)]
    assert any(link.endswith("k=5&image=id:9&image=id:8") or "image=id:9&image=id:" in link for link in links)
    assert any("image=id:9&minus=id:" in link for link in links)
    for link in links:
        assert client.get(link, headers=HTML).status_code == 200, link


def test_a_form_becomes_an_address(client: TestClient, files: list[Path]) -> None:
    sent = {"mode": "instance", "k": "4", "combine": "mean"}
    answer = client.post(
        "/search?index=gallery",
        files={"image": files[11].read_bytes()},
        data=sent,
        headers=HTML,
        follow_redirects=False,
    )
    assert answer.status_code == 303
    page = client.get(answer.headers["location"], headers=HTML).text
    assert cards(page)[0] == "/".join(files[11].parts[-2:])
    assert len(cards(page)) == 4
    broken = client.post("/search?index=gallery", files={"image": b"no picture"}, headers=HTML)
    assert broken.status_code == 422
    assert 'role="alert"' in broken.text


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/?image=id:999", 404, "no item with the id 999"),
        ("/?image=id:1&mode=taste", 422, "taste"),
        ("/?image=id:1&k=0", 422, "k must be a whole number"),
        ("/?image=id:1&box=1,2", 422, "is not a box"),
        ("/?image=id:1&combine=best", 422, "combine"),
        ("/?image=what", 422, "is no image of this page"),
        ("/?words=a+cat", 422, "no encoder"),
        ("/?index=other", 404, "known: gallery"),
        ("/map?mode=taste", 422, "unknown mode"),
        ("/nowhere", 404, "no page at that address"),
    ],
)
def test_what_makes_no_sense_is_said_on_the_page(client: TestClient, address: str, status: int, words: str) -> None:
    answer = client.get(address, headers=HTML)
    assert answer.status_code == status
    assert words in unescape(answer.text)
    assert 'role="alert"' in answer.text


def test_an_address_is_read_as_it_was_written() -> None:
    images = (PageImage(3, weight="2"), PageImage(upload="a" * 64))
    state = PageState(index="a b", mode="style", images=images, minus=(PageImage(4),), box="0.1,0.2,0.3,0.4", k="7")
    from starlette.datastructures import QueryParams

    assert PageState.of(QueryParams(state.url().partition("?")[2])) == state
    with pytest.raises(UsageError, match="is no image"):
        PageImage.parse("id:1:2")


@pytest.fixture
def odd(tmp_path: Path, tiny: None) -> Iterator[TestClient]:
    from retrieval.indexing.build import build_index

    paint(tmp_path / "photos", ["<img src=x onerror=alert(1)>.png", "a'b\"c&amp;.png", "b\u202egnp.png", "{{7*7}}.png"])
    build_index(tmp_path / "photos", tmp_path / "a.diffsim", modes=["style"], model="cells", run=RUN)
    paint(tmp_path / "none", [])
    (tmp_path / "none").mkdir(exist_ok=True)
    with TestClient(create_app({"a&b <i>": tmp_path / "a.diffsim"}, load=load_tiny), ORIGIN) as client:
        yield client


def test_names_of_files_and_indexes_are_escaped(odd: TestClient) -> None:
    for address in ("/", "/?image=id:0", "/map"):
        page = odd.get(address, headers=HTML).text
        assert "<img src=x" not in page
        assert "<i>" not in page
        assert "\u202e" not in page
        assert "49.png" not in page
