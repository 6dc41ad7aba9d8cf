"""Maintain an index: remove items, compact, verify, repair, export. Every change is one atomic commit."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.commit import commit
from index_store.disk_usage import bytes_on_disk
from index_store.files import write_array, writing
from index_store.garbage import READER_GRACE, clear_uncommitted, drop_expired, retire
from index_store.generation import Generation
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.lookup import find_items
from index_store.reader import IndexReader
from index_store.remote.mirror import segment_name
from index_store.remote.pull import existing_root
from index_store.row_locations import batched
from index_store.segment_writer import SegmentWriter
from index_store.verify import Damage, find_damage, segment_ids, whole_generation, without_damage
from retrieval.errors import IndexCorruptError, NoSpaceError, UsageError
from retrieval.indexing.training import open_trained
from retrieval.models.modes import Outputs
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.text import human_bytes
from retrieval.version import CREATED_BY

LOG = logging.getLogger(__name__)

COMPACT_ROWS = 4096  # images of a segment after compaction
COPY_ROWS = 256  # copied at a time; never more than a shard holds, which bounds the memory in bytes


@dataclass(frozen=True)
class Change:
    """The result of a change to an index."""

    index: str
    items: int  # in the index now
    removed: int = 0
    segments: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self)}


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
        NoSpaceError: the disk can't hold the old and the new segments together.
        CancelledError: it was stopped; the index is as before.
    """
    layout = Layout(existing_root(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        generation = drop_expired(layout, reader.generation)
        clear_uncommitted(layout, generation)
        before = sum(bytes_on_disk(layout, generation.stored_names).values())
        _check_room(index, before, shutil.disk_usage(layout.root).free)
        merged = tuple(writer.finish() for writer in _rewrite(layout, reader, on_progress, cancel))
        retired = retire(generation, [segment.name for segment in generation.segments])
        stored = commit(layout, replace(retired, segments=merged, tombstones=()), CREATED_BY)
        drop_expired(layout, stored, timedelta(0) if now else READER_GRACE)
        fresh = open_trained(layout.root)
    after = sum(bytes_on_disk(layout, fresh.generation.stored_names).values())
    return Change(str(index), len(fresh), 0, len(merged), before, after)


def _check_room(index: str | Path, needed: int, free: int) -> None:
    if needed > free:
        text = f"compacting {index} needs {human_bytes(needed)} for a while and {human_bytes(free)} are free"
        raise NoSpaceError(text)


def _rewrite(
    layout: Layout, reader: IndexReader, on_progress: OnProgress, cancel: Cancellation | None
) -> Iterator[SegmentWriter]:
    """Copy all live rows and all rejects into new segments, a few rows of tensors at a time.

    Outputs that all rows of a new segment have are stored in it. Outputs of only some rows get a segment of their own.
    """
    vectors = {encoder: reader.stored_vectors(encoder) for encoder in reader.generation.encoders}
    records = (record for segment in reader.generation.segments for record in segment.attention.values())
    at_a_time = min((record.shard_rows for record in records), default=COPY_ROWS)
    starts = range(0, len(reader), COMPACT_ROWS) if len(reader) else [0]
    for count, start in enumerate(starts):
        rows = np.arange(start, min(start + COMPACT_ROWS, len(reader)))
        whole, parts = _split(reader, rows)
        name = f"{reader.generation.number + 1:06d}-{count:03d}"
        writer = SegmentWriter(layout, segment_name(layout, name), reader.codec, reader.sources.all)
        for some in batched(rows, at_a_time):
            if cancel is not None:
                cancel.check()
            items = reader.items(some)
            writer.append(items, [], {e: vectors[e][some] for e in whole.encoders}, _tensors(reader, whole, some))
            on_progress(Progress("copy", int(some[-1]) + 1, len(reader)))
        if start == 0:
            writer.append([], reader.rejects(), {}, {})
        yield writer
        for part, (outputs, held) in enumerate(parts):
            filled = SegmentWriter(layout, segment_name(layout, f"{name}-{part:02d}"), reader.codec)
            for some in batched(held, at_a_time):
                ids = reader.ids[some].tolist()
                filled.fill(ids, {e: vectors[e][some] for e in outputs.encoders}, _tensors(reader, outputs, some))
            yield filled


def _tensors(reader: IndexReader, outputs: Outputs, rows: NDArray[np.int64]) -> dict[str, dict[str, NDArray[Any]]]:
    return {mode: reader.attention(mode, rows.tolist()) for mode in outputs.modes}


def _split(reader: IndexReader, rows: NDArray[np.int64]) -> tuple[Outputs, list[tuple[Outputs, NDArray[np.int64]]]]:
    """Return the outputs that all of ``rows`` have; and for each that only some rows have, those rows."""
    generation = reader.generation
    held = {Outputs(modes=(name,)): reader.has_tensors(name)[rows] for name in generation.stored_names}
    held |= {Outputs(encoders=(name,)): reader.has_vector(name)[rows] for name in generation.encoders}
    whole = [one for one, mask in held.items() if mask.all()]
    together = Outputs(tuple(m for one in whole for m in one.modes), tuple(e for one in whole for e in one.encoders))
    return together, [(one, rows[mask]) for one, mask in held.items() if mask.any() and not mask.all()]


def verify(
    index: str | Path, on_progress: OnProgress = ignore_progress, cancel: Cancellation | None = None
) -> list[Damage]:
    """Read every byte of an index and return the damage; an empty list means that the index is whole.

    The stage "verify" counts segments. ``cancel`` stops the reading between two of them with a CancelledError.
    """

    def on_segment(done: int, total: int) -> None:
        if cancel is not None:
            cancel.check()
        on_progress(Progress("verify", done, total))

    return list(find_damage(existing_root(index, fresh=True), on_segment))


@dataclass(frozen=True)
class Repaired:
    """The result of a repair."""

    damages: list[Damage]
    items_before: int = 0  # in the damaged index
    items: int = 0  # in the index now
    sources: tuple[str, ...] = ()  # a build of these computes the removed items again


def repair(index: str | Path) -> Repaired:
    """Remove the damage that :func:`verify` finds; the next build computes it again.

    Raises:
        IndexCorruptError: no generation is readable.
    """
    layout = Layout(existing_root(index, fresh=True))
    with writer_lock(layout):
        damages = list(find_damage(layout.root))
        if not damages:
            return Repaired([])
        generation = whole_generation(layout)
        if generation is None:
            raise IndexCorruptError(f"{index} has no readable generation left: build it anew")
        commit(layout, _mended(layout, generation, damages), CREATED_BY)
    before = sum(segment.rows for segment in generation.segments) - len(generation.tombstones)
    reader = IndexReader(layout.root)
    repaired = Repaired(damages, before, len(reader), reader.sources.places)
    LOG.warning(
        "repaired %s: %d damages, %d images before, %d now", index, len(damages), repaired.items_before, repaired.items
    )
    return repaired


def _mended(layout: Layout, generation: Generation, damages: list[Damage]) -> Generation:
    """Return ``generation`` without the damage, numbered so that its commit follows every generation on the disk."""
    numbers = [int(path.stem) for path in layout.generations.glob("[0-9]*.json") if path.stem.isdecimal()]
    lost = {damage.segment for damage in damages if not damage.rows}
    records = {segment.name: segment for segment in generation.segments}
    ids = {d.segment: segment_ids(layout, records[d.segment]) for d in damages if d.rows and d.segment not in lost}
    mended = retire(without_damage(generation, damages, ids), sorted(lost - {""}))
    return replace(mended, number=max(numbers))


def export(index: str | Path, folder: Path) -> Change:
    """Write ``items.parquet`` and, for every encoder, float32 ``ENCODER.npy`` ``[items, dim]``; rows correspond.

    Raises:
        UsageError: ``folder`` is not empty.
    """
    reader = IndexReader(existing_root(index))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name another folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        reader.export_items(folder / "items.parquet")
        for encoder in reader.generation.encoders:
            write_array(folder / f"{encoder}.npy", reader.vectors(encoder))
    return Change(str(index), len(reader))
