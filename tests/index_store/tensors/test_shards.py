"""Shards of a mirror: local files first, then the store; their ends are remembered for as long as the reader lives."""

from pathlib import Path

import numpy as np
import pytest

from index_store.layout import Layout
from index_store.remote.object_store import ObjectStore
from index_store.tensors.attention import StoredRow, read_rows
from index_store.tensors.shards import LocalShards, MirrorShards, find_shards
from tests.index_store.tensors.small_group import RECORD, SHARD_ROWS, assert_same, random_rows, write

pytestmark = pytest.mark.usefixtures("small_shards")


class Bucket(ObjectStore):
    """The objects of a folder, with a count of the requests for ends."""

    def __init__(self, folder: Path) -> None:
        self.url, self._folder, self.tails = "s3://bucket/x", folder, 0

    def tail(self, key: str, length: int) -> tuple[bytes, int]:
        self.tails += 1
        data = (self._folder / key).read_bytes()
        start = max(0, len(data) - length)
        return data[start:], start

    def ranges(self, key: str, spans: object) -> list[bytes]:
        data = (self._folder / key).read_bytes()
        return [data[start : start + length] for start, length in spans]  # type: ignore[attr-defined]


def test_a_mirror_reads_local_files_and_asks_the_store_for_the_others(tmp_path: Path) -> None:
    tensors = random_rows(2 * SHARD_ROWS)
    near, far = tmp_path / "mirror", tmp_path / "bucket"
    write(far / "a.zarr", tensors, [2 * SHARD_ROWS])
    write(near / "b.zarr", tensors, [2 * SHARD_ROWS])
    store = Bucket(far)
    shards = MirrorShards(near, store)
    rows = [StoredRow(near / name, RECORD, row) for row in range(2 * SHARD_ROWS) for name in ("a.zarr", "b.zarr")]
    expected = {name: np.repeat(array, 2, axis=0) for name, array in tensors.items()}
    assert_same(read_rows(rows, shards), expected)
    assert store.tails == 2 * len(tensors), "one request a shard"
    assert_same(read_rows(rows, shards), expected)
    assert store.tails == 2 * len(tensors), "remembered"
    assert_same(read_rows(rows, MirrorShards(near, store)), expected)
    assert store.tails == 4 * len(tensors), "by that reader alone"


def test_an_index_in_a_folder_has_files_only(tmp_path: Path) -> None:
    shards = find_shards(Layout(tmp_path))
    assert isinstance(shards, LocalShards)
    with pytest.raises(FileNotFoundError):
        shards.open(str(tmp_path / "0"))
