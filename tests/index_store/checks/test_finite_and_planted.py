"""Vectors that are not finite, links where writers write, and mirrors that were copied."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_store.commit import commit
from index_store.errors import IndexCorruptError, IndexStoreError, UsageError
from index_store.files import FileRecord, open_regular
from index_store.generation import read_current
from index_store.layout import Layout, vectors_file
from index_store.reader import IndexReader
from index_store.remote.mirror import find_mirror
from index_store.remote.object_store import configured_endpoint, parse_url, without_secrets
from index_store.repair.damage import find_damage
from index_store.tensors.cache import CacheKey, TensorCache
from index_store.vectors.storage import write_vectors


def with_vectors(layout: Layout, vectors: np.ndarray) -> None:
    """Replace the vectors of the first segment, with their record."""
    generation = read_current(layout)
    first, *others = generation.segments
    write_vectors(layout.vectors(first.name, "e"), [vectors])
    files = {**first.files, vectors_file("e"): FileRecord.of(layout.vectors(first.name, "e"))}
    commit(layout, replace(generation, segments=(replace(first, files=files), *others)), "tests")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_left_out_and_found(layout: Layout, wrong: float) -> None:
    vectors = np.eye(4, dtype=np.float32)[:3]
    vectors[1, 2] = wrong
    with_vectors(layout, vectors)
    reader = IndexReader(layout.root)
    rows, cosines = reader.coarse_index("e").search(np.eye(4, dtype=np.float32)[0], 6)
    assert sorted(rows) == [0, 2, 3, 4, 5]
    assert np.isfinite(cosines).all()
    assert reader.has_vector("e").tolist() == [True, False, True, True, True, True]
    [damage] = find_damage(layout.root)
    assert f"{layout.vectors(reader.generation.segments[0].name, 'e')} holds numbers that are infinite" in damage.what


@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (3, 0)])
def test_vectors_of_another_shape_are_an_error_that_names_the_file(layout: Layout, shape: tuple[int, int]) -> None:
    with_vectors(layout, np.ones(shape, np.float32))
    with pytest.raises(IndexCorruptError, match=r"e\.npy"):
        IndexReader(layout.root).coarse_index("e")


def test_a_pipe_is_an_error_at_once(layout: Layout) -> None:
    path = layout.items(read_current(layout).segments[0].name)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(IndexCorruptError, match=r"items\.parquet"):
        IndexReader(layout.root)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(path)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_cache_follows_no_link(layout: Layout, tmp_path: Path, level: int) -> None:
    outside, key = tmp_path / "outside", CacheKey("style", "abc", f"{7:064x}")
    outside.mkdir()
    folder = layout.cache.joinpath(*("style", "abc", "000")[:level])
    folder.parent.mkdir(parents=True)
    folder.symlink_to(outside)
    cache = TensorCache(layout, 10_000)
    assert not cache.put(key, {"q": np.ones(3, np.float16)})
    assert cache.get(key) is None
    assert list(outside.iterdir()) == []


def test_a_mirror_that_was_copied_from_elsewhere_is_not_used(layout: Layout) -> None:
    state = {"url": "s3://bucket/x.diffsim", "endpoint": "http://127.0.0.1:9", "e_tag": None, "version": None}
    layout.remote.write_text(json.dumps({**state, "segments": {}, "projections": [], "swept": False}))
    with pytest.raises(IndexStoreError, match="copied from elsewhere"):
        find_mirror(layout)


ENDPOINTS = {
    "http://user:hunter2@127.0.0.1:9000": "http://127.0.0.1:9000",
    "https://hunter2@host/base?token=hunter2#hunter2": "https://host/base",
    "http://us%40er:hunter2@[::1]:9000/": "http://[::1]:9000/",
    "https://host": "https://host",
}


@pytest.mark.parametrize(("given", "plain"), ENDPOINTS.items())
def test_the_endpoint_has_no_password(given: str, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", given)
    assert configured_endpoint() == plain
    assert "hunter2" not in without_secrets(f"error for {given}/bucket/key (it failed)")


@pytest.mark.parametrize("given", ["ftp://user:hunter2@host", "http://user:hunter2@[::1", "user:hunter2@host"])
def test_an_endpoint_that_is_no_url_is_an_error_without_its_password(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", given)
    with pytest.raises(UsageError) as caught:
        configured_endpoint()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@host/x.diffsim", "s3://user:hunter2@bucket/x", "s3://u:hunter2@b"]
)
def test_a_url_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/../x.diffsim", "s3://bucket/a/./x", "s3://../x/y", "s3://bucket/a\nb"])
def test_a_url_with_parts_that_lead_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="does not name an index"):
        parse_url(url)
