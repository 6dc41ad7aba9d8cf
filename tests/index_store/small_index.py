"""An index of a few made-up items, without images or models: for tests of the files themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_store.catalog import Item, Reject
from index_store.commit import commit
from index_store.errors import IndexCorruptError
from index_store.generation import Generation
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter

EMPTY = Generation(0, {"model": {"name": "m"}}, {}, (), ("e",), ("style",))


def make_index(root: Path, segments: int) -> Layout:
    layout = Layout(root)
    generation = commit(layout, EMPTY, "tests")
    for _ in range(segments):
        generation = grow(layout, generation)
    return layout


def grow(layout: Layout, generation: Generation) -> Generation:
    """Commit one more segment of three items and one reject."""
    writer = SegmentWriter(layout, f"{generation.number + 1:06d}")
    ids = range(generation.next_id, generation.next_id + 3)
    vectors = np.eye(4, dtype=np.float32)[[i % 4 for i in ids]]
    tensors = {name: np.full((3, 1, 1, 2, 2), generation.number, np.float16) for name in ("q", "k", "v")}
    reject = Reject(f"/photos/broken{generation.number}.png", 1, 2, "truncated", "ends early")
    writer.append([item(i) for i in ids], [reject], {"e": vectors}, {"style": tensors})
    grown = replace(generation, segments=(*generation.segments, writer.finish()), next_id=ids.stop)
    return commit(layout, grown, "tests")


def item(number: int) -> Item:
    return Item(number, f"/photos/{number}.png", 10, 20, f"{number:064x}", 640, 480)


def read_all(root: Path) -> tuple[list[Item], list[Reject], list[list[float]]]:
    reader = IndexReader(root)
    return reader.items(), reader.rejects(), reader.vectors("e").tolist()


def assert_corrupt(root: Path, victim: Path) -> None:
    with pytest.raises(IndexCorruptError) as caught:
        read_all(root)
    assert str(victim) in str(caught.value)
