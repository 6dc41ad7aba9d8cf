"""Damage and garbage in an object store."""

from datetime import timedelta
from pathlib import Path

import pytest

from index_store.errors import IndexCorruptError
from index_store.garbage import sweep_store
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.remote.pull import local_root
from retrieval.indexing.upkeep.repairing import repair, verify
from tests.index_store.remote.remote_index import build, store_of
from tests.support.sample_index import Contents, paint

pytestmark = pytest.mark.xdist_group("object_store")


def test_damage_in_the_store_is_found_named_and_taken_out(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(6))
    build(source, url)
    undisturbed, store = Contents.of(local_root(url)), store_of(url)
    shard = next(entry.key for entry in store.list("attention") if "/h/c/" in entry.key)
    found = store.get(shard)
    assert found is not None
    store.put(shard, bytes([found.data[0] ^ 1]) + found.data[1:])
    keys = [entry.key for entry in store.list("items") if "/spare/" not in entry.key]
    catalog = next(key for key in reversed(keys) if key.endswith("items.parquet"))
    store.delete([catalog])
    with pytest.raises(IndexCorruptError, match=f"{url}/{shard} holds a row whose checksum"):
        Contents.of(local_root(url))
    assert len(verify(url)) == 2
    with pytest.raises(IndexCorruptError, match=r"items\.parquet is missing"):
        Contents.of(local_root(url))
    assert len(repair(url).damages) == 2
    build(source, url)
    assert verify(url) == []
    mended = Contents.of(local_root(url))
    order = [[item.uri for item in mended.items].index(item.uri) for item in undisturbed.items]
    for name, rows in undisturbed.tensors.items():
        assert [mended.tensors[name][row] for row in order] == rows


def test_a_lost_head_is_no_new_index(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(2))
    build(source, url)
    store_of(url).delete(["CURRENT"])
    with pytest.raises(IndexCorruptError, match=f"{url}/CURRENT is missing"):
        build(source, url)


def test_garbage_goes_when_it_is_old_and_nothing_else(url: str, tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    paint(source, range(5))
    build(source, url)
    store, root = store_of(url), local_root(url)
    before = {entry.key for entry in store.list("")}
    left = ["items/000009-ab/items.parquet", "attention/style/000009-ab.zarr/zarr.json", "generations/000099.json"]
    for key in (*left, "projections/0123.npz", "notes.txt"):
        store.put(key, b"left by a killed writer, or just under way")
    generation = read_current(Layout(root))
    assert sweep_store(store, Layout(root), generation) == []
    swept = sweep_store(store, Layout(root), generation, timedelta(seconds=-60))
    assert sorted(swept) == sorted([*left, "projections/0123.npz"])
    assert {entry.key for entry in store.list("")} == before | {"notes.txt"}
    assert verify(url) == []
