"""Keep an index in shape: remove items, compact, verify and repair, export. Every change is one atomic commit."""

import shutil
from collections.abc import Callable, Iterator, Sequence
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
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.lookup import find_items
from index_store.reader import IndexReader
from index_store.remote.mirror import segment_name
from index_store.remote.pull import existing_root
from index_store.row_locations import batched
from index_store.segment_writer import SegmentWriter
from index_store.vectors.training import train_where_due
from index_store.verify import Damage, find_damage, segment_ids, whole_generation, without_damage
from retrieval.errors import IndexCorruptError, NoSpaceError, UsageError
from retrieval.models.modes import Outputs
from retrieval.version import CREATED_BY

COMPACT_ROWS = 4096  # images a segment after compaction
COPY_ROWS = 256  # at a time, and never more than a shard holds: so memory is bounded in bytes

Progress = Callable[[int, int], None]
"""Told (done, total) now and then."""


@dataclass(frozen=True)
class Change:
    """What a command did to an index."""

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
    """Take items out: by path, by the end of a path, by glob, or by ``id:N``. Files are not touched.

    Their ids are never given again. A file that still lies in a source comes back with the next build of it.

    Raises:
        UsageError: a pattern that fits no item.
    """
    layout = Layout(existing_root(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        ids = {item.id for pattern in patterns for item in find_items(reader, pattern)}
        generation = reader.generation
        tombstones = tuple(sorted({*generation.tombstones, *ids}))
        commit(layout, replace(generation, tombstones=tombstones), CREATED_BY)
    return Change(str(index), len(reader) - len(ids), removed=len(ids), segments=len(generation.segments))


def compact(index: str | Path, now: bool = False, on_progress: Progress = lambda done, total: None) -> Change:
    """Merge all segments into few, leaving removed items out. Ids, vectors and tensors stay as they are, bit by bit.

    The old segments are kept a day for searches that opened them, unless ``now`` says that there are none.

    Raises:
        NoSpaceError: the disk can't hold both for the while.
    """
    layout = Layout(existing_root(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        generation = drop_expired(layout, reader.generation)
        clear_uncommitted(layout, generation)
        before = sum(bytes_on_disk(layout, generation.modes).values())
        free = shutil.disk_usage(layout.root).free
        if before > free:
            raise NoSpaceError(f"compacting {index} needs {before / 1e9:.1f} GB for a while, {free / 1e9:.1f} are free")
        merged = tuple(writer.finish() for writer in _rewrite(layout, reader, on_progress))
        retired = retire(generation, [segment.name for segment in generation.segments])
        stored = commit(layout, replace(retired, segments=merged, tombstones=()), CREATED_BY)
        drop_expired(layout, stored, timedelta(0) if now else READER_GRACE)
        fresh = IndexReader(layout.root)
        train_where_due(fresh.vector_reader)
    after = sum(bytes_on_disk(layout, fresh.generation.modes).values())
    return Change(str(index), len(fresh), 0, len(merged), before, after)


def _rewrite(layout: Layout, reader: IndexReader, on_progress: Progress) -> Iterator[SegmentWriter]:
    """Copy all live rows, and every reject, into new segments; memory holds a few rows of tensors at a time.

    A mode or encoder that all rows of a new segment have lies in that segment; what only some have, in one beside it.
    """
    number = reader.generation.number + 1
    vectors = {encoder: reader.stored_vectors(encoder) for encoder in reader.generation.encoders}
    records = (record for segment in reader.generation.segments for record in segment.attention.values())
    at_a_time = min((record.shard_rows for record in records), default=COPY_ROWS)
    starts = range(0, len(reader), COMPACT_ROWS) if len(reader) else [0]
    for count, start in enumerate(starts):
        rows = np.arange(start, min(start + COMPACT_ROWS, len(reader)))
        whole, parts = _split(reader, rows)
        writer = SegmentWriter(layout, segment_name(layout, f"{number:06d}-{count:03d}"), reader.codec)
        for some in batched(rows, at_a_time):
            items = reader.items(some)
            writer.append(items, [], {e: vectors[e][some] for e in whole.encoders}, _tensors(reader, whole, some))
            on_progress(int(some[-1]) + 1, len(reader))
        if start == 0:
            writer.append([], reader.rejects(), {}, {})
        yield writer
        for part, (need, held) in enumerate(parts):
            name = segment_name(layout, f"{number:06d}-{count:03d}-{part:02d}")
            filled = SegmentWriter(layout, name, reader.codec)
            for some in batched(held, at_a_time):
                ids = reader.ids[some].tolist()
                filled.fill(ids, {e: vectors[e][some] for e in need.encoders}, _tensors(reader, need, some))
            yield filled


def _tensors(reader: IndexReader, need: Outputs, rows: NDArray[np.int64]) -> dict[str, dict[str, NDArray[Any]]]:
    return {mode: reader.attention(mode, rows.tolist()) for mode in need.modes}


def _split(reader: IndexReader, rows: NDArray[np.int64]) -> tuple[Outputs, list[tuple[Outputs, NDArray[np.int64]]]]:
    """Return what all of ``rows`` have, and one by one what only some of them have, with those."""
    generation = reader.generation
    held = {Outputs(modes=(mode,)): reader.has_tensors(mode)[rows] for mode in generation.modes}
    held |= {Outputs(encoders=(name,)): reader.has_vector(name)[rows] for name in generation.encoders}
    whole = [need for need, mask in held.items() if mask.all()]
    together = Outputs(
        tuple(m for need in whole for m in need.modes), tuple(e for need in whole for e in need.encoders)
    )
    return together, [(need, rows[mask]) for need, mask in held.items() if mask.any() and not mask.all()]


def verify(index: str | Path) -> list[Damage]:
    """Read everything back; an empty list says that the index is whole."""
    return list(find_damage(existing_root(index, fresh=True)))


@dataclass(frozen=True)
class Repaired:
    """What a repair found and took out."""

    damages: list[Damage]
    items_before: int = 0  # that the index named
    items: int = 0  # in the index now
    sources: tuple[str, ...] = ()  # a build of which computes again what was taken out


def repair(index: str | Path) -> Repaired:
    """Take out what :func:`verify` finds, so that the next build computes it again.

    Raises:
        IndexCorruptError: no generation is whole, so that there is nothing to go on from.
    """
    layout = Layout(existing_root(index, fresh=True))
    with writer_lock(layout):
        damages = list(find_damage(layout.root))
        if not damages:
            return Repaired([])
        generation = whole_generation(layout)
        if generation is None:
            raise IndexCorruptError(f"{index} has no whole generation left: build it anew")
        numbers = [int(path.stem) for path in layout.generations.glob("[0-9]*.json") if path.stem.isdecimal()]
        lost = {damage.segment for damage in damages if not damage.rows}
        records = {segment.name: segment for segment in generation.segments}
        ids = {d.segment: segment_ids(layout, records[d.segment]) for d in damages if d.rows and d.segment not in lost}
        mended = retire(without_damage(generation, damages, ids), sorted(lost - {""}))
        commit(layout, replace(mended, number=max(numbers)), CREATED_BY)
    before = sum(segment.rows for segment in generation.segments) - len(generation.tombstones)
    return Repaired(damages, before, len(IndexReader(layout.root)), generation.sources)


def export(index: str | Path, folder: Path) -> Change:
    """Write the catalogue as ``items.parquet`` and every encoder's vectors as float32 npy, rows in one order."""
    reader = IndexReader(existing_root(index))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name another folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        reader.export_items(folder / "items.parquet")
        for encoder in reader.generation.encoders:
            write_array(folder / f"{encoder}.npy", reader.vectors(encoder))
    return Change(str(index), len(reader))
