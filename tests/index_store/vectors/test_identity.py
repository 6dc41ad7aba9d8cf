"""An IVF index is used only with the very items that it was trained on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from index_store.commit import commit
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
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
