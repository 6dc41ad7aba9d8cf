"""An IVF index is used only with the very items that it was trained on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_store.commit import commit
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from index_store.vectors.ivf import IVFRecord, find_valid_record
from tests.index_store.small_index import EMPTY, item


def checksums_of(root: Path, ids: Sequence[int]) -> dict[str, int]:
    """Return the checksums of an index whose one segment has the same vectors whatever the ids."""
    writer = SegmentWriter(Layout(root), "000002")
    writer.append([item(number) for number in ids], [], {"e": np.eye(3, dtype=np.float32)}, {})
    commit(Layout(root), replace(EMPTY, segments=(writer.finish(),), next_id=10), "tests")
    return IndexReader(root).vector_reader.checksums("e")


def test_equal_vectors_of_other_items_are_others(tmp_path: Path) -> None:
    first = checksums_of(tmp_path / "a.diffsim", [0, 1, 2])
    assert first == checksums_of(tmp_path / "b.diffsim", [0, 1, 2])
    assert first != checksums_of(tmp_path / "c.diffsim", [3, 4, 5])


@pytest.mark.parametrize(("removed", "is_valid"), [([], False), ([4], False), ([4, 7], True), ([1, 4, 7], True)])
def test_items_that_are_back_make_it_outdated(tmp_path: Path, removed: list[int], is_valid: bool) -> None:
    layout = Layout(tmp_path)
    layout.derived.mkdir()
    record = IVFRecord("e-000001.faiss", 1, 2, {"000002": 3}, 10, 4, 1, 1.0, removed=[4, 7])
    layout.ivf_record("e").write_bytes(record.to_json())
    found = find_valid_record(layout, "e", {"000002": 3}, np.array(removed, np.int64))
    assert (found is not None) == is_valid
