"""Tensors of chosen segments come near, within a budget, and are read from there."""

from pathlib import Path

import numpy as np
import pytest

from index_store.reader import IndexReader
from index_store.remote.nearby import NearbyTensors
from index_store.remote.object_store import ObjectStore
from index_store.remote.pull import existing_root
from tests.index_store.remote.remote_index import build
from tests.support.sample_index import paint


@pytest.fixture
def reader(url: str, tmp_path: Path) -> IndexReader:
    paint(tmp_path / "photos", range(12))
    build(tmp_path / "photos", url)
    return IndexReader(existing_root(url))


def files(reader: IndexReader, name: str) -> list[Path]:
    group = reader.layout.attention("style", name)
    return [path for path in group.rglob("*") if path.is_file()]


def test_tensors_are_read_from_the_disk(reader: IndexReader, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [segment.name for segment in reader.generation.segments]
    assert len(names) == 3
    expected = reader.attention("style", range(12))
    near = NearbyTensors(reader.layout, 10**9)
    near.keep(reader.generation, names[:2])
    near.wait()
    assert near.held == sum(path.stat().st_size for name in names[:2] for path in files(reader, name)) > 0
    assert files(reader, names[2]) == []

    def unreachable(self: ObjectStore, *key: object) -> object:
        raise AssertionError("the store was asked")

    again = IndexReader(reader.layout.root)
    monkeypatch.setattr(ObjectStore, "tail", unreachable)
    monkeypatch.setattr(ObjectStore, "ranges", unreachable)
    for name, array in again.attention("style", range(8)).items():
        np.testing.assert_array_equal(array, expected[name][:8])
    with pytest.raises(AssertionError, match="the store was asked"):
        again.attention("style", [11])


def test_other_segments_leave_and_the_budget_holds(reader: IndexReader) -> None:
    names = [segment.name for segment in reader.generation.segments]
    near = NearbyTensors(reader.layout, 10**9)
    near.keep(reader.generation, names)
    near.wait()
    whole = near.held
    near.keep(reader.generation, names[2:])
    near.wait()
    assert [bool(files(reader, name)) for name in names] == [False, False, True]
    small = NearbyTensors(reader.layout, whole // 2)
    small.keep(reader.generation, names)
    small.wait()
    assert sum(path.stat().st_size for name in names for path in files(reader, name)) <= whole // 2
    none = NearbyTensors(reader.layout, 0)
    none.keep(reader.generation, [])
    none.wait()
    assert none.held == 0
