"""Indexes, items and pictures: only catalogued files are read, and only as they were indexed."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from retrieval import Engine
from retrieval.serving.app import create_app
from tests.serving.conftest import ORIGIN
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import load_tiny

ITEMS = "/v1/indexes/gallery/items"


def test_indexes_and_their_descriptions(client: TestClient, engine: Engine) -> None:
    (listed,) = client.get("/v1/indexes").json()["indexes"]
    assert (listed["name"], listed["items"], listed["modes"]) == ("gallery", len(engine), list(engine.modes))
    assert client.get("/v1/indexes/gallery").json()["codec"] == engine.info()["codec"]


def test_items_page_by_page_and_by_id(client: TestClient, engine: Engine) -> None:
    first, second = (client.get(ITEMS, params={"first": first, "count": 20}).json() for first in (0, 20))
    assert [item["path"] for page in (first, second) for item in page["items"]] == engine.paths()
    assert first["total"] == len(engine)
    assert client.get(ITEMS, params={"first": 10**18}).json()["items"] == []
    some = client.get(ITEMS, params={"ids": "7,3,999"}).json()["items"]
    assert [item["id"] for item in some] == [7, 3]
    assert client.get(f"{ITEMS}/7").json() == some[0]
    assert client.get("/v1/indexes/gallery/find", params={"text": some[0]["path"]}).json() == some[0]
    assert client.get(f"{ITEMS}/999").status_code == 404


def test_a_name_finds_one_item_of_the_catalogue_alone(client: TestClient) -> None:
    find = "/v1/indexes/gallery/find"
    assert client.get(find, params={"text": "ink/cat.png"}).json()["name"] == "cat.png"
    several = client.get(find, params={"text": "cat.png"})
    assert several.status_code == 422
    assert "fits several items" in several.json()["error"]
    for text in ("/etc/passwd", "../../etc/passwd", "*", "", "/", "id:-1", "id:99999999999999999999"):
        assert client.get(find, params={"text": text}).status_code in (404, 422), text


def test_thumbnails_and_originals(client: TestClient, engine: Engine) -> None:
    shown = client.get(f"{ITEMS}/3/thumbnail", params={"side": 128})
    assert max(Image.open(io.BytesIO(shown.content)).size) == 96
    assert "immutable" in shown.headers["cache-control"]
    again = client.get(f"{ITEMS}/3/thumbnail", params={"side": 128}, headers={"if-none-match": shown.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{ITEMS}/3/thumbnail", params={"side": 130}).status_code == 422
    original = client.get(f"{ITEMS}/3/original")
    assert original.content == Path(engine.paths()[3]).read_bytes()
    assert original.headers["content-type"] == "image/png"
    assert "sandbox" in original.headers["content-security-policy"]


def test_the_map_has_a_place_for_every_image(client: TestClient, engine: Engine) -> None:
    found = client.get("/v1/indexes/gallery/map", params={"mode": "style"}).json()
    assert len(found["ids"]) == len(found["x"]) == len(found["y"]) == len(engine)
    assert all(0 <= number <= 1 for axis in ("x", "y") for number in found[axis])
    ink = [place for place, path in enumerate(engine.paths()) if "/ink/" in path]
    spread = max(found["x"][place] for place in ink) - min(found["x"][place] for place in ink)
    assert spread < 0.5, "pictures of one style lie near each other"
    assert client.get("/v1/indexes/gallery/map", params={"mode": "taste"}).status_code == 422


@pytest.fixture
def changing(tmp_path: Path, tiny: None) -> Iterator[tuple[TestClient, list[Path]]]:
    from retrieval.indexing.build import build_index

    paths = paint(tmp_path / "photos", range(4))
    build_index(tmp_path / "photos", tmp_path / "a.diffsim", modes=["style"], model="cells", run=RUN)
    with TestClient(create_app({"a": tmp_path / "a.diffsim"}, load=load_tiny), ORIGIN) as client:
        yield client, paths


def test_a_file_that_was_replaced_is_not_shown(changing: tuple[TestClient, list[Path]], tmp_path: Path) -> None:
    client, paths = changing
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    paths[0].unlink()
    paths[1].write_bytes(secret.read_bytes())
    paths[2].unlink()
    paths[2].symlink_to(secret)
    for number in range(3):
        for picture in ("thumbnail", "original"):
            answer = client.get(f"/v1/indexes/a/items/{number}/{picture}")
            assert (answer.status_code, answer.json()["kind"]) == (410, "gone")
    assert client.get("/v1/indexes/a/items/3/original").content == paths[3].read_bytes()
