"""A reader shows one generation, without removed items."""

from dataclasses import replace

import numpy as np

from index_store.commit import commit
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from tests.index_store.small_index import grow, item


def test_a_reader_keeps_its_generation(layout: Layout) -> None:
    reader = IndexReader(layout.root)
    generation = reader.generation
    for _ in range(10):
        generation = commit(layout, replace(generation, tombstones=(*generation.tombstones, 1)), "tests")
    grow(layout, generation)
    assert not layout.generation(3).exists()
    assert [found.id for found in reader.items()] == [0, 1, 2, 3, 4, 5]
    assert reader.vectors("e").shape == (6, 4)
    assert reader.attention("style", [5, 1])["q"][:, 0, 0, 0, 0].tolist() == [2, 1]
    assert [found.id for found in IndexReader(layout.root).items()] == [0, 2, 3, 4, 5, 6, 7, 8]


def test_dead_rows_are_left_out_everywhere(layout: Layout) -> None:
    commit(layout, replace(read_current(layout), tombstones=(0, 1, 2, 4)), "tests")
    reader = IndexReader(layout.root)
    assert len(reader) == 2
    assert reader.ids.tolist() == [3, 5]
    assert reader.items([1, 0]) == [item(5), item(3)]
    assert reader.vectors("e").tolist() == np.eye(4)[[3, 1]].tolist()
    assert reader.attention("style", [0])["v"].flatten().tolist() == [2] * 4
    assert reader.find("id", 4) == []
    assert reader.find("uri", "/photos/5.png") == reader.catalog.find_suffix("5.png") == [1]
