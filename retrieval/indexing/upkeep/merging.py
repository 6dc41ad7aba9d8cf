"""Merge indexes of the same recipe: their items, vectors and tensors are copied as they are, under new ids."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.catalog_files.sources import Source
from index_store.checks.opening import exists_inside
from index_store.commit import commit
from index_store.files import atomic_write, read_regular
from index_store.garbage import clear_uncommitted, prepare_to_write
from index_store.generation import Generation
from index_store.ids import new_segment_name
from index_store.layout import Layout
from index_store.locate import was_committed
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root, local_root
from index_store.row_locations import batched
from index_store.segment_writer import SegmentWriter
from retrieval.encoding.fingerprint import check_fingerprint
from retrieval.indexing.sources.places import sources_after
from retrieval.indexing.training import open_trained
from retrieval.indexing.upkeep.change import Change
from retrieval.indexing.upkeep.compacting import COMPACT_ROWS, COPY_ROWS, split_outputs, stored_rows
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.version import CREATED_BY

OnCopied = Callable[[int], None]
"""Called with the number of images that were just copied, or found to be there already."""


def merge_indexes(
    index: str | Path,
    parts: Sequence[str | Path],
    *,
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> Change:
    """Add the items of ``parts`` to ``index``, which may not exist yet; ``parts`` stay as they are.

    One commit takes one part whole, so a stopped merge goes on with the parts that are left. An image that the index
    has already is left out; a newer version of it replaces the older one.

    Args:
        index: its folder or object-store URL.
        parts: indexes with the same fingerprint: model, weights, modes, encoders, codec.
        on_progress: called after every batch of the stage "copy" with images done and in total.
        cancel: stops the merge between batches when another thread asks for it.

    Raises:
        IndexNotFoundError: a part is not an index.
        IndexIncompatibleError: a part was made by another recipe.
        IndexLockedError, IndexCorruptError, NoSpaceError: see :mod:`index_store.errors`.
        CancelledError: it was stopped; parts that were committed count.
    """
    readers = [IndexReader(existing_root(part)) for part in parts]
    layout = Layout(local_root(index))
    total, done = sum(map(len, readers)), 0

    def copied(images: int) -> None:
        nonlocal done
        done += images
        if cancel is not None:
            cancel.check()
        on_progress(Progress("copy", done, total))

    with writer_lock(layout):
        if not was_committed(layout) and readers:
            _begin(layout, readers[0])
        for reader in readers:
            _take(layout, reader, copied)
        fresh = open_trained(layout.root)
    return Change(str(index), len(fresh), segments=len(fresh.generation.segments))


def _begin(layout: Layout, like: IndexReader) -> None:
    """Commit an empty index of the same recipe."""
    clear_uncommitted(layout, None)
    first = like.generation
    kept = {"fingerprint", "settings", "encoders", "modes", "projections", "tensors"}
    head = Generation(0, **{name: getattr(first, name) for name in kept}, sources=())
    _copy_projections(layout, like)
    commit(layout, head, CREATED_BY)


def _copy_projections(layout: Layout, part: IndexReader) -> None:
    for digest in set(part.generation.projections.values()):
        target = layout.projection(digest)
        if not exists_inside(target):
            atomic_write(target, read_regular(part.layout.projection(digest)))


def _take(layout: Layout, part: IndexReader, copied: OnCopied) -> None:
    """Commit the items of one part."""
    whole = IndexReader(layout.root)
    check_fingerprint(whole.generation.fingerprint, part.generation.fingerprint, part.layout.root)
    generation = prepare_to_write(layout, whole.generation)
    sources = _sources(whole, part, layout.root)
    rows, replaced = _new_rows(whole, part)
    writers = list(_copy(layout, generation, part, rows, sources, copied))
    copied(len(part) - len(rows))
    if not writers:
        return
    grown = replace(
        generation,
        sources=sources,
        segments=(*generation.segments, *(writer.finish() for writer in writers)),
        tombstones=tuple(sorted({*generation.tombstones, *replaced})),
        next_id=generation.next_id + len(rows),
    )
    commit(layout, grown, CREATED_BY)


def _sources(whole: IndexReader, part: IndexReader, root: Path) -> tuple[Source, ...]:
    """Return the sources of both, those of ``part`` at the places where they were found."""
    places = [Path(place) for place in part.sources.places if Path(place).exists()]
    return sources_after(whole.sources.all, places, root) if places else whole.sources.all


def _new_rows(whole: IndexReader, part: IndexReader) -> tuple[NDArray[np.int64], set[int]]:
    """Return the rows of ``part`` that the index misses, and the ids of the index's items that they replace."""
    known = {item.uri: item for item in whole.items()}
    rows, replaced = [], set[int]()
    for row, item in enumerate(part.items()):
        before = known.get(item.uri)
        if before is None or before.sha256 != item.sha256:
            rows.append(row)
            replaced |= set() if before is None else {before.id}
    return np.array(rows, np.int64), replaced


def _copy(
    layout: Layout,
    generation: Generation,
    part: IndexReader,
    rows: NDArray[np.int64],
    sources: tuple[Source, ...],
    copied: OnCopied,
) -> Iterator[SegmentWriter]:
    """Write ``rows`` into new segments; outputs of only some rows get a segment of their own."""
    vectors = {encoder: part.stored_vectors(encoder) for encoder in part.generation.encoders}
    records = (record for segment in part.generation.segments for record in segment.attention.values())
    at_a_time = min((record.shard_rows for record in records), default=COPY_ROWS)
    new_ids = dict(zip(rows.tolist(), range(generation.next_id, generation.next_id + len(rows)), strict=True))

    def begin(name: str) -> SegmentWriter:
        return SegmentWriter(layout, new_segment_name(layout, generation.number, name), part.codec, sources)

    starts = range(0, len(rows), COMPACT_ROWS) if len(rows) else [0] if part.rejects() else []
    for count, start in enumerate(starts):
        mine = rows[start : start + COMPACT_ROWS]
        whole, parts = split_outputs(part, mine)
        writer = begin(f"-{count:03d}")
        for some in batched(mine, at_a_time):
            items = [replace(item, id=new_ids[row]) for item, row in zip(part.items(some), some.tolist(), strict=True)]
            writer.append(items, [], {e: vectors[e][some] for e in whole.encoders}, stored_rows(part, whole, some))
            copied(len(some))
        if start == 0:
            writer.append([], part.rejects(), {}, {})
        yield writer
        for number, (outputs, held) in enumerate(parts):
            filled = begin(f"-{count:03d}-{number:02d}")
            for some in batched(held, at_a_time):
                ids = [new_ids[row] for row in some.tolist()]
                filled.fill(ids, {e: vectors[e][some] for e in outputs.encoders}, stored_rows(part, outputs, some))
            yield filled
