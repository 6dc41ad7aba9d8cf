"""Keep an index in shape: remove items, compact, verify and repair, export. Every change is one atomic commit."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from index_store.catalog import ITEM_SCHEMA, Item, write_rows
from index_store.coarse import write_array
from index_store.durable import writing
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.manifest import commit
from index_store.reader import IndexReader
from index_store.segment import READER_GRACE, SegmentWriter, clear_uncommitted, drop_expired, retire
from index_store.verify import Damage, find_damage, segment_ids, whole_generation, without_damage
from retrieval.errors import IndexCorruptError, NoSpaceError, UsageError
from retrieval.version import CREATED_BY

COMPACT_ROWS = 4096  # images a segment after compaction
COPY_ROWS = 64

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
    layout = Layout(Path(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        ids = {item.id for pattern in patterns for item in _matching(reader, pattern)}
        generation = reader.generation
        tombstones = tuple(sorted({*generation.tombstones, *ids}))
        commit(layout, replace(generation, tombstones=tombstones), CREATED_BY)
    return Change(str(index), len(reader) - len(ids), removed=len(ids), segments=len(generation.segments))


def _matching(reader: IndexReader, pattern: str) -> list[Item]:
    if pattern.startswith("id:") and pattern[3:].isdecimal():
        rows = reader.find("id", int(pattern[3:]))
    elif any(character in pattern for character in "*?["):
        absolute = str(Path(pattern).absolute())
        return _some([item for item in reader.items() if fnmatchcase(item.uri, absolute)], pattern, reader)
    else:
        rows = reader.find("uri", str(Path(pattern).absolute())) or reader.find_suffix(pattern)
    return _some(reader.items(rows), pattern, reader)


def _some(items: list[Item], pattern: str, reader: IndexReader) -> list[Item]:
    if not items:
        raise UsageError(f"{pattern} fits no item of {reader.layout.root}; nothing was removed")
    return items


def compact(index: str | Path, now: bool = False, on_progress: Progress = lambda done, total: None) -> Change:
    """Merge all segments into few, leaving removed items out. Ids, vectors and tensors stay as they are, bit by bit.

    The old segments are kept a day for searches that opened them, unless ``now`` says that there are none.

    Raises:
        NoSpaceError: the disk can't hold both for the while.
    """
    layout = Layout(Path(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        generation = drop_expired(layout, reader.generation)
        clear_uncommitted(layout, generation)
        before = sum(reader.bytes_on_disk().values())
        free = shutil.disk_usage(layout.root).free
        if before > free:
            raise NoSpaceError(f"compacting {index} needs {before / 1e9:.1f} GB for a while, {free / 1e9:.1f} are free")
        merged = tuple(writer.finish() for writer in _rewrite(layout, reader, on_progress))
        retired = retire(generation, [segment.name for segment in generation.segments])
        stored = commit(layout, replace(retired, segments=merged, tombstones=()), CREATED_BY)
        drop_expired(layout, stored, timedelta(0) if now else READER_GRACE)
        fresh = IndexReader(layout.root)
        fresh.train_where_due()
    after = sum(fresh.bytes_on_disk().values())
    return Change(str(index), len(fresh), 0, len(merged), before, after)


def _rewrite(layout: Layout, reader: IndexReader, on_progress: Progress) -> Iterator[SegmentWriter]:
    """Copy all live rows, and every reject, into new segments; memory holds a few rows of tensors at a time."""
    generation = reader.generation
    vectors = {encoder: reader.stored_vectors(encoder) for encoder in generation.encoders} if len(reader) else {}
    starts = range(0, len(reader), COMPACT_ROWS) if len(reader) else [0]
    for number, start in enumerate(starts):
        writer = SegmentWriter(layout, f"{generation.number + 1:06d}-{number:03d}", reader.codec)
        end = min(start + COMPACT_ROWS, len(reader))
        for first in range(start, end, COPY_ROWS):
            rows = np.arange(first, min(first + COPY_ROWS, end))
            tensors = {mode: reader.attention(mode, rows.tolist()) for mode in generation.modes}
            writer.append(reader.items(rows), [], {name: stored[rows] for name, stored in vectors.items()}, tensors)
            on_progress(int(rows[-1]) + 1, len(reader))
        if start == 0:
            writer.append([], reader.rejects(), {}, {})
        yield writer


def verify(index: str | Path) -> list[Damage]:
    """Read everything back; an empty list says that the index is whole."""
    return list(find_damage(Path(index)))


def repair(index: str | Path) -> list[Damage]:
    """Take out what :func:`verify` finds, so that the next build computes it again. Return what was found.

    Raises:
        IndexCorruptError: no generation is whole, so that there is nothing to go on from.
    """
    layout = Layout(Path(index))
    with writer_lock(layout):
        damages = verify(index)
        if not damages:
            return []
        generation = whole_generation(layout)
        if generation is None:
            raise IndexCorruptError(f"{index} has no whole generation left: build it anew")
        numbers = [int(path.stem) for path in layout.generations.glob("[0-9]*.json") if path.stem.isdecimal()]
        lost = {damage.segment for damage in damages if not damage.rows}
        ids = {d.segment: segment_ids(layout, d.segment) for d in damages if d.rows and d.segment not in lost}
        mended = retire(without_damage(generation, damages, ids), sorted(lost - {""}))
        commit(layout, replace(mended, number=max(numbers)), CREATED_BY)
    return damages


def export(index: str | Path, folder: Path) -> Change:
    """Write the catalogue as ``items.parquet`` and every encoder's vectors as float32 npy, rows in one order."""
    reader = IndexReader(Path(index))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name another folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "items.parquet", reader.items(), ITEM_SCHEMA)
        for encoder in reader.generation.encoders:
            write_array(folder / f"{encoder}.npy", reader.vectors(encoder))
    return Change(str(index), len(reader))
