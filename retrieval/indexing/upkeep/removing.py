"""Take items out of an index."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from index_store.commit import commit
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.lookup import find_items
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from retrieval.indexing.upkeep.change import Change
from retrieval.version import CREATED_BY


def remove_items(index: str | Path, patterns: Sequence[str]) -> Change:
    """Remove the items that fit a path, the end of a path, a glob, or ``id:N``. Their ids are never used again.

    Image files stay: the next build of their folder indexes them again.

    Raises:
        UsageError: a pattern fits no item.
    """
    layout = Layout(existing_root(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        ids = {item.id for pattern in patterns for item in find_items(reader, pattern)}
        generation = reader.generation
        tombstones = tuple(sorted({*generation.tombstones, *ids}))
        commit(layout, replace(generation, tombstones=tombstones), CREATED_BY)
    return Change(str(index), len(reader) - len(ids), removed=len(ids), segments=len(generation.segments))
