"""An index in the object server of the tests."""

import os
from pathlib import Path

from index_store.remote.object_store import ObjectStore, open_store
from retrieval.indexing.build import build_index
from tests.support.sample_index import RUN, Contents
from tests.support.stub_models import tiny_model


def store_of(url: str) -> ObjectStore:
    return open_store(url, os.environ["AWS_ENDPOINT_URL"])


def build(source: Path, index: str | Path, **options: object) -> None:
    with tiny_model():
        build_index(source, index, model="cells", modes=["style"], run=RUN, **options)  # type: ignore[arg-type]


def folder_of(source: Path, place: Path) -> Contents:
    """What an index of the same images in a folder says."""
    build(source, place)
    return Contents.of(place)


def names_in(root: Path) -> list[tuple[str, int]]:
    """The items as (folder, number); all their bytes are read on the way."""
    paths = [Path(item.uri) for item in Contents.of(root).items]
    return [(path.parent.name, int(path.stem)) for path in paths]
