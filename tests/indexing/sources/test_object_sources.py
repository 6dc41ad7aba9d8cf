"""Images in a bucket, as objects and inside shards, are indexed like those of a folder."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from index_store.reader import IndexReader
from index_store.remote.object_store import configured_endpoint, open_store
from index_store.remote.pull import MIRRORS_VARIABLE
from retrieval.errors import RemoteStoreError, UsageError
from retrieval.images.discovery import find_images
from retrieval.images.file_bytes import read_bytes
from retrieval.indexing.build import build_index
from retrieval.indexing.sources.upkeep import drop_source, list_sources, relocate_sources
from retrieval.indexing.upkeep.updating import update_index
from retrieval.search.browsing.catalogue import original
from retrieval.search.engine import Engine
from retrieval.search.filters.filter import Filter
from tests.indexing.builds import build, reasons_of, refuse_to_compute
from tests.support.object_server import BUCKET, ENVIRONMENT, object_server
from tests.support.sample_index import RUN, Contents, paint
from tests.support.shards import save_to_disk, write_hub, write_tar
from tests.support.stub_models import load_tiny

pytestmark = [pytest.mark.usefixtures("tiny"), pytest.mark.xdist_group("object_store")]
IMAGES = 7


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_server() as place:
        yield place


@pytest.fixture
def prefix(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of the bucket that this test alone uses."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint, MIRRORS_VARIABLE: str(tmp_path / "m")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("retrieval.images.shards.opening.ASK_SECONDS", 0.0)
    return f"s3://{BUCKET}/{tmp_path.name}"


def upload(folder: Path, prefix: str) -> None:
    store = open_store(f"s3://{BUCKET}", configured_endpoint())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(f"{prefix.removeprefix(f's3://{BUCKET}/')}/{path.relative_to(folder)}", path.read_bytes())


def delete(name: str) -> None:
    open_store(f"s3://{BUCKET}", configured_endpoint()).delete([name.removeprefix(f"s3://{BUCKET}/")])


@pytest.mark.parametrize("form", ["images", "tar", "hub", "datasets"])
def test_the_index_equals_that_of_a_folder(photos: Path, index: Path, tmp_path: Path, prefix: str, form: str) -> None:
    files, made = sorted(photos.iterdir()), tmp_path / "made"
    if form == "tar":
        write_tar(made / "0.tar", files)
    elif form == "hub":
        write_hub(made / "0.parquet", files)
    elif form == "datasets":
        save_to_disk(made, files)
    upload(photos if form == "images" else made, prefix)
    build(Path(prefix), index)
    build(photos, tmp_path / "plain.diffsim")
    found, expected = Contents.of(index), Contents.of(tmp_path / "plain.diffsim")
    assert found.tensors == expected.tensors
    assert found.vectors == expected.vectors
    assert all(item.uri.startswith(f"{prefix}/") for item in found.items)
    assert original(found.items[3])[0] == files[3].read_bytes()
    assert build(Path(prefix), index, on_progress=refuse_to_compute).unchanged == IMAGES
    assert update_index(index, RUN, refuse_to_compute, load=load_tiny).unchanged == IMAGES
    results = Engine.open(index).search(photos / "001.png", "style", k=3, where=Filter(under=(prefix,)))
    assert len(results.results) == 3
    assert not any(result.is_gone for result in results)


def test_objects_that_come_and_go_are_followed(photos: Path, index: Path, tmp_path: Path, prefix: str) -> None:
    upload(photos, prefix)
    build(Path(prefix), index)
    delete(f"{prefix}/002.png")
    paint(tmp_path / "more", ["x.png"])
    (tmp_path / "more" / "bad.png").write_bytes(b"no image")
    upload(tmp_path / "more", prefix)
    report = build(Path(prefix), index)
    assert (report.added, report.removed, report.items) == (1, 1, IMAGES)
    assert reasons_of(index) == {"bad.png": "not_an_image"}
    assert build(Path(prefix), index, on_progress=refuse_to_compute).unchanged == IMAGES


def test_sources_in_a_bucket_are_listed_moved_and_dropped(photos: Path, index: Path, prefix: str) -> None:
    upload(photos, prefix)
    build(Path(prefix), index)
    (state,) = list_sources(index).sources
    assert (state.location, state.is_there, state.items, state.missing) == (prefix, True, IMAGES, 0)
    relocate_sources(index, prefix, photos)
    assert {Path(item.uri).parent for item in IndexReader(index).items()} == {photos}
    assert build(photos, index, replace(RUN, rehash=True), on_progress=refuse_to_compute).items == IMAGES
    assert drop_source(index, photos).removed == IMAGES


def test_an_index_and_its_images_may_lie_in_one_bucket(photos: Path, prefix: str) -> None:
    upload(photos, f"{prefix}/images")
    index = f"{prefix}/coco.diffsim"
    build_index(f"{prefix}/images", index, run=RUN, load=load_tiny, model="cells", modes=["style"], codec="qkv-float16")
    assert len(find_images([Path(prefix)]).names) == IMAGES
    assert len(Engine.open(index).search(photos / "000.png", "style", k=IMAGES).results) == IMAGES


def test_what_is_not_there_is_told(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        find_images([Path(f"{prefix}/nothing")])
    with pytest.raises(UsageError, match="does not exist"):
        find_images([Path(f"{prefix}/nothing.tar")])
    with pytest.raises(Exception, match="does not exist"):
        read_bytes(Path(f"{prefix}/a.png"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("index_store.remote.object_store.RETRIES", 0)
    with pytest.raises(RemoteStoreError, match="can't be reached"):
        read_bytes(Path(f"{prefix}/a.png"))
