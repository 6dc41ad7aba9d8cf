"""Merge the segments of an index into few."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.commit import commit
from index_store.disk_usage import bytes_on_disk
from index_store.garbage import READER_GRACE, drop_expired, prepare_to_write, retire
from index_store.generation import Generation, read_current
from index_store.ids import new_segment_name
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from index_store.row_locations import batched
from index_store.segment_writer import SegmentWriter
from retrieval.errors import NoSpaceError
from retrieval.indexing.training import open_trained
from retrieval.indexing.upkeep.change import Change
from retrieval.models.modes import Outputs
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.text import human_bytes
from retrieval.version import CREATED_BY

COMPACT_ROWS = 4096  # images of a segment after compaction
COPY_ROWS = 256  # copied at a time; never more than a shard holds, which bounds the memory in bytes


def compact(
    index: str | Path,
    now: bool = False,
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> Change:
    """Merge all segments into few, without removed items. Ids, vectors and tensors stay the same, bit by bit.

    Args:
        index: its folder or object-store URL.
        now: delete the old segments at once. By default they stay for a day, for searches that have them open.
        on_progress: called after every batch of the stage "copy" with images done and in total.
        cancel: stops the copying when another thread asks for it.

    Raises:
        NoSpaceError: the disk can't hold the old and the new segments together. The new ones are removed.
        CancelledError: it was stopped; the index is as before.
    """
    layout = Layout(existing_root(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        generation = prepare_to_write(layout, reader.generation)
        before = sum(bytes_on_disk(layout, generation.stored_names).values())
        _check_room(index, before, shutil.disk_usage(layout.root).free)
        retired = retire(generation, [segment.name for segment in generation.segments])
        with _written_or_removed(layout, generation) as written:
            merged = tuple(writer.finish() for writer in _rewrite(layout, reader, written, on_progress, cancel))
            stored = commit(layout, replace(retired, segments=merged, tombstones=()), CREATED_BY)
        drop_expired(layout, stored, timedelta(0) if now else READER_GRACE)
        fresh = open_trained(layout.root)
    after = sum(bytes_on_disk(layout, fresh.generation.stored_names).values())
    return Change(str(index), len(fresh), 0, len(merged), before, after)


def _check_room(index: str | Path, needed: int, free: int) -> None:
    if needed > free:
        text = f"compacting {index} needs {human_bytes(needed)} for a while and {human_bytes(free)} are free"
        raise NoSpaceError(text)


@contextmanager
def _written_or_removed(layout: Layout, generation: Generation) -> Iterator[list[SegmentWriter]]:
    """Collect the writers of new segments; remove their files if the work ends before a commit after ``generation``."""
    written: list[SegmentWriter] = []
    try:
        yield written
    except BaseException:
        if read_current(layout).number == generation.number:
            for writer in written:
                writer.discard(even_finished=True)
        raise


def _rewrite(
    layout: Layout,
    reader: IndexReader,
    written: list[SegmentWriter],
    on_progress: OnProgress,
    cancel: Cancellation | None,
) -> Iterator[SegmentWriter]:
    """Copy all live rows and all rejects into new segments, a few rows of tensors at a time.

    Outputs that all rows of a new segment have are stored in it. Outputs of only some rows get a segment of their own.
    Every writer is in ``written`` before it writes its first file.
    """

    def begin(part: str) -> SegmentWriter:
        name = new_segment_name(layout, reader.generation.number, part)
        written.append(SegmentWriter(layout, name, reader.codec, reader.sources.all, merges=len(reader)))
        return written[-1]

    vectors = {encoder: reader.stored_vectors(encoder) for encoder in reader.generation.encoders}
    records = (record for segment in reader.generation.segments for record in segment.attention.values())
    at_a_time = min((record.shard_rows for record in records), default=COPY_ROWS)
    starts = range(0, len(reader), COMPACT_ROWS) if len(reader) else [0]
    for count, start in enumerate(starts):
        rows = np.arange(start, min(start + COMPACT_ROWS, len(reader)))
        whole, parts = split_outputs(reader, rows)
        writer = begin(f"-{count:03d}")
        for some in batched(rows, at_a_time):
            if cancel is not None:
                cancel.check()
            items = reader.items(some)
            writer.append(items, [], {e: vectors[e][some] for e in whole.encoders}, stored_rows(reader, whole, some))
            on_progress(Progress("copy", int(some[-1]) + 1, len(reader)))
        if start == 0:
            writer.append([], reader.rejects(), {}, {})
        yield writer
        for part, (outputs, held) in enumerate(parts):
            filled = begin(f"-{count:03d}-{part:02d}")
            for some in batched(held, at_a_time):
                ids = reader.ids[some].tolist()
                filled.fill(ids, {e: vectors[e][some] for e in outputs.encoders}, stored_rows(reader, outputs, some))
            yield filled


def stored_rows(reader: IndexReader, outputs: Outputs, rows: NDArray[np.int64]) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the codec's arrays of ``rows`` as they are stored, ``[len(rows), ...]`` each, by the name of a mode."""
    return {mode: reader.attention(mode, rows.tolist()) for mode in outputs.modes}


def split_outputs(
    reader: IndexReader, rows: NDArray[np.int64]
) -> tuple[Outputs, list[tuple[Outputs, NDArray[np.int64]]]]:
    """Return the outputs that all of ``rows`` have; and for each that only some rows have, those rows."""
    generation = reader.generation
    held = {Outputs(modes=(name,)): reader.has_tensors(name)[rows] for name in generation.stored_names}
    held |= {Outputs(encoders=(name,)): reader.has_vector(name)[rows] for name in generation.encoders}
    whole = [one for one, mask in held.items() if mask.all()]
    together = Outputs(tuple(m for one in whole for m in one.modes), tuple(e for one in whole for e in one.encoders))
    return together, [(one, rows[mask]) for one, mask in held.items() if mask.any() and not mask.all()]
